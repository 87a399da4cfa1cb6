"""What the published trainings of other backbones than Point Transformer V3 change in the recipe of a dataset.

Source: the released configurations of each; those of Sonata (Wu 2025, arXiv:2503.16429), Concerto (Zhang 2025,
arXiv:2510.23607), Utonia and LitePT are one-cycle trainings with Mix3D and gradients clipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

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
    name="adamw", lr=1e-2, block_lr_scale=1.0, weight_decay=0.02, warmup_fraction=0.05, div=10.0,
    final_div=1e3, cycle_momentum=False,
)  # fmt: skip
"""Of a linear probe, on standardised features."""
LINEAR_SHARE = 4
"""A linear layer is trained for a quarter of the epochs of a network."""
POINTNEXT_DATASETS = ("scannet", "scannet200", "s3dis")
"""Rooms; ScanNet's are trained like those of S3DIS, as often as ScanNet's recipe says."""


SONATA = OptimizerSpec(
    name="adamw", lr=2e-3, block_lr_scale=0.1, weight_decay=0.02, warmup_fraction=0.05, div=10.0,
    final_div=1000.0, clip_norm=3.0,
)  # fmt: skip
"""Of Sonata and Concerto for a linear head, for a new decoder and for all, and of Utonia but for all."""
UTONIA: Mapping[str, OptimizerSpec] = MappingProxyType(
    {
        "nuscenes": replace(SONATA, lr=1e-3, block_lr_scale=0.02, weight_decay=0.05),
        "waymo": replace(SONATA, weight_decay=0.005),
        "semantickitti": replace(SONATA, lr=1e-4, block_lr_scale=0.2),
    }
)
"""Of Utonia where all is trained, by dataset of LiDAR scans."""
UTONIA_ROOMS = replace(SONATA, lr=1e-3, weight_decay=0.01)
"""Of Utonia where all is trained, for rooms."""
LITEPT = OptimizerSpec(lr=6e-3, block_lr_scale=0.1, weight_decay=0.05, clip_norm=1.0)
"""Of LitePT for rooms; for LiDAR scans it is Point Transformer V3's."""
ROOMS = ("scannet", "scannet200", "s3dis", "structured3d")
SCANS = ("nuscenes", "semantickitti", "waymo")


def as_published(recipe: Recipe, size: str) -> Recipe:
    """The recipe of a dataset, changed for its backbone and what is trained of it.

    Args:
        recipe: of the dataset, with the backbone and ``tune`` set.
        size: of the backbone; MinkUNet and PointNeXt are published in full size.
    """
    if recipe.backbone == "minkunet" and size == "full":
        return replace(recipe, optimizer=MINKUNET)
    if recipe.backbone == "pointnext" and size == "full" and recipe.dataset in POINTNEXT_DATASETS:
        return _pointnext(recipe)
    if recipe.backbone == "linear":
        return replace(
            recipe,
            optimizer=LINEAR,
            mix3d=0.0,
            epochs=max(1, recipe.epochs // LINEAR_SHARE),
            evaluations=max(1, recipe.evaluations // LINEAR_SHARE),
        )
    if recipe.backbone == "sonata":
        return _batches(replace(recipe, optimizer=SONATA), rooms=24, scans=12)
    if recipe.backbone == "utonia":
        return _utonia(recipe)
    if recipe.backbone == "litept" and recipe.is_indoor:
        return _litept(recipe, size)
    return recipe


def _pointnext(recipe: Recipe) -> Recipe:
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


def _utonia(recipe: Recipe) -> Recipe:
    optimizer = SONATA
    if recipe.tune == "all":
        optimizer = UTONIA.get(recipe.dataset, UTONIA_ROOMS)
    scans = 32 if recipe.dataset == "waymo" else 64
    return _batches(replace(recipe, optimizer=optimizer), rooms=64, scans=scans)


def _litept(recipe: Recipe, size: str) -> Recipe:
    if recipe.dataset == "structured3d":
        lr = 3e-3 if size == "large" else LITEPT.lr
        return replace(recipe, optimizer=replace(LITEPT, lr=lr), epochs=200, batch_size=48)
    if recipe.dataset in ("scannet", "scannet200"):
        return replace(recipe, optimizer=LITEPT, epochs=1200)
    return replace(recipe, optimizer=LITEPT)


def _batches(recipe: Recipe, *, rooms: int, scans: int) -> Recipe:
    """With the batch size of the public datasets; others keep theirs, since few scenes make few batches."""
    if recipe.dataset in ROOMS:
        return replace(recipe, batch_size=rooms)
    return replace(recipe, batch_size=scans) if recipe.dataset in SCANS else recipe
