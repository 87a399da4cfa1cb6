"""What the published trainings of other backbones than Point Transformer V3 change in the recipe of a dataset."""

from __future__ import annotations

from dataclasses import replace

from pointseg.config.optimizer import OptimizerSpec
from pointseg.config.recipe import Recipe
from pointseg.transforms.augmentation import Augmentation

MINKUNET = OptimizerSpec(
    name="sgd", lr=0.05, block_lr_scale=1.0, weight_decay=1e-4, momentum=0.9, nesterov=True,
    warmup_fraction=0.05, div=10.0, final_div=1e4,
)  # fmt: skip
"""MinkUNet is trained with SGD (Choy et al., CVPR 2019)."""
POINTNEXT = OptimizerSpec(
    name="adamw", lr=1e-2, block_lr_scale=1.0, weight_decay=1e-4, warmup_fraction=0.0, div=1.0,
    final_div=1e3, cycle_momentum=False, clip_norm=10.0,
)  # fmt: skip
"""A cosine from 1e-2 to 1e-5 without warm-up (Qian et al., NeurIPS 2022, released configuration for S3DIS)."""
POINTNEXT_AUGMENTATION = replace(
    Augmentation.none(),
    rotate_z_probability=1.0,
    rotate_z_deg=180.0,
    scale_low=0.9,
    scale_high=1.1,
    jitter_m=0.005,
    jitter_clip_m=0.02,
    contrast_probability=0.2,
)
"""As released, except that colours are not dropped."""
LINEAR = OptimizerSpec(
    name="adamw", lr=5e-3, block_lr_scale=1.0, weight_decay=0.02, warmup_fraction=0.05, div=10.0,
    final_div=1e3, cycle_momentum=False,
)  # fmt: skip
"""Of a linear probe, on standardised features."""
LINEAR_SHARE = 10
"""A linear layer is trained for this fraction of the epochs of a network."""
POINTNEXT_DATASETS = ("scannet", "scannet200", "s3dis")
"""Rooms; ScanNet's are trained like those of S3DIS, as often as ScanNet's recipe says."""


def as_published(recipe: Recipe) -> Recipe:
    """The recipe of a dataset, changed for its backbone in full size."""
    if recipe.backbone == "minkunet":
        return replace(recipe, optimizer=MINKUNET)
    if recipe.backbone == "pointnext" and recipe.dataset in POINTNEXT_DATASETS:
        return replace(
            recipe,
            optimizer=POINTNEXT,
            augmentation=POINTNEXT_AUGMENTATION,
            voxel_m=0.04,
            max_points=24_000,
            sphere_fraction=1.0,
            batch_size=8,
            mix3d=0.0,
            label_smoothing=0.2,
            lovasz=0.0,
        )
    if recipe.backbone == "linear":
        return replace(
            recipe,
            optimizer=LINEAR,
            mix3d=0.0,
            epochs=max(1, recipe.epochs // LINEAR_SHARE),
            evaluations=max(1, recipe.evaluations // LINEAR_SHARE),
        )
    return recipe
