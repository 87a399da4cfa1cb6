"""The recipes of the published trainings as values, and smaller sizes of the backbones.

These are PTv3's; ``pointseg.config.backbone_recipes`` says what other backbones change.

Source: the configurations of PTv3 (Wu et al., CVPR 2024) and DITR (Knaebel et al. 2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from dinomed3d.runtime.messages.suggestion import suggestion
from pointseg.config.backbone_recipes import as_published
from pointseg.config.optimizer import OptimizerSpec
from pointseg.config.recipe import InferenceConfig, Recipe
from pointseg.config.validation import RecipeError
from pointseg.images.config import ImageConfig, whole_patches
from pointseg.images.visibility import VisibilityConfig
from pointseg.plugins import is_plugin
from pointseg.transforms.augmentation import Augmentation

_INDOOR = OptimizerSpec(
    name="adamw", lr=6e-3, block_lr_scale=0.1, weight_decay=0.05,
    warmup_fraction=0.05, div=10.0, final_div=1000.0,
)  # fmt: skip
_OUTDOOR = replace(_INDOOR, lr=2e-3, weight_decay=0.005, warmup_fraction=0.04, final_div=100.0)
SCANNET = Recipe(
    dataset="scannet",
    optimizer=_INDOOR,
    test=InferenceConfig(tta="scannet"),
)
S3DIS = Recipe(
    dataset="s3dis",
    epochs=3000,
    max_points=204_800,
    sphere_fraction=0.6,
    train_splits=("Area_1", "Area_2", "Area_3", "Area_4", "Area_6"),
    val_splits=("Area_5",),
    test_splits=("Area_5",),
    augmentation=replace(Augmentation(), elastic_probability=0.0),
    optimizer=_INDOOR,
    test=InferenceConfig(tta="s3dis"),
)
STRUCTURED3D = replace(SCANNET, dataset="structured3d", max_points=204_800, sphere_fraction=0.8)
_LIDAR = Augmentation.lidar()
NUSCENES = Recipe(
    dataset="nuscenes",
    scene_type="outdoor",
    features=("coord", "strength"),
    voxel_m=0.05,
    max_points=None,
    epochs=50,
    evaluations=50,
    augmentation=_LIDAR,
    optimizer=_OUTDOOR,
    test=InferenceConfig(tta="nuscenes", prevoxel_m=0.025),
)
SEMANTICKITTI = replace(
    NUSCENES,
    dataset="semantickitti",
    clip_box_m=(-35.2, -35.2, -4.0, 35.2, 35.2, 2.0),
    class_weights="auto",
    test=InferenceConfig(tta="semantickitti", prevoxel_m=0.01),
)
WAYMO = replace(
    NUSCENES,
    dataset="waymo",
    clip_box_m=(-75.2, -75.2, -4.0, 75.2, 75.2, 2.0),
    test=InferenceConfig(tta="semantickitti"),
)
SYNTHETIC = Recipe(
    dataset="synthetic",
    voxel_m=0.06,
    max_points=12_000,
    epochs=6,
    evaluations=3,
    batch_size=4,
    mix3d=0.0,
    augmentation=replace(Augmentation(), elastic_probability=0.0),
    optimizer=replace(_INDOOR, block_lr_scale=1.0),
    test_splits=("test",),
    test=InferenceConfig(tta="single"),
)
FOLDER = Recipe(
    dataset="folder",
    epochs=100,
    evaluations=20,
    batch_size=4,
    mix3d=0.0,
    optimizer=_INDOOR,
    test_splits=("test",),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.dataset: recipe
        for recipe in (
            SCANNET,
            replace(SCANNET, dataset="scannet200"),
            S3DIS,
            STRUCTURED3D,
            NUSCENES,
            SEMANTICKITTI,
            WAYMO,
            SYNTHETIC,
            FOLDER,
        )
    }
)

DISTILLATION_SPLITS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = MappingProxyType(
    {"structured3d": (("train", "val", "test"), ())}
)
"""Splits for training and validation where a further dataset of D-DITR is learned from other splits than its
own recipe's: labels are not used."""
MIXED_CLIP_NORM = 3.0
"""Largest norm of gradients where D-DITR learns from several datasets."""

# Image sizes, number of views, depth ranges and occlusion as in DITR, whose patches have 14 pixels.
_IMAGES: Mapping[str, ImageConfig] = MappingProxyType(
    {
        "scannet": ImageConfig(size=(420, 560), visibility=VisibilityConfig(near_m=1.0, far_m=4.0)),
        "scannet200": ImageConfig(
            size=(420, 560), visibility=VisibilityConfig(near_m=1.0, far_m=4.0)
        ),
        "s3dis": ImageConfig(size=(518, 518)),
        "structured3d": ImageConfig(
            size=(350, 630), views=3, visibility=VisibilityConfig(near_m=1.0, far_m=4.0)
        ),
        "nuscenes": ImageConfig(
            size=(378, 672), views=None, visibility=VisibilityConfig(occlusion="none")
        ),
        "semantickitti": ImageConfig(
            size=(378, 1246), views=None, visibility=VisibilityConfig(occlusion="none")
        ),
        "waymo": ImageConfig(
            size=(308, 672), views=None, visibility=VisibilityConfig(occlusion="none")
        ),
        "folder": ImageConfig(size=(480, 640)),
    }
)


def images_of(recipe: Recipe, encoder: str) -> ImageConfig:
    """How a recipe uses the images of its dataset; for ``folder`` the depth tolerance follows the voxel size.

    Args:
        recipe: adapted to the dataset by ``fit_to_dataset``.
        encoder: as for ``images_for``.

    Raises:
        RecipeError: a dataset without images, an unknown encoder.
    """
    images = images_for(recipe.dataset, encoder)
    if recipe.dataset != "folder" and not is_plugin(recipe.dataset):
        return images
    # The tolerance must be large compared to a voxel, but not to the scene: small objects would hide nothing.
    finer = min(1.0, recipe.voxel_m / SCANNET.voxel_m)
    visibility = images.visibility
    tolerance = visibility.depth_tolerance_m * finer
    return replace(images, visibility=replace(visibility, depth_tolerance_m=tolerance))


def images_for(dataset: str, encoder: str) -> ImageConfig:
    """How the images of a dataset are used, for one encoder and the usual voxel size.

    Their size is the whole number of the encoder's patches nearest to that of DITR.

    Raises:
        RecipeError: a dataset without images, an unknown encoder.
    """
    from dinomed3d.lifting import MODELS
    from dinomed3d.lifting.dino import patch_of

    usual = "folder" if is_plugin(dataset) else dataset
    if usual not in _IMAGES:
        raise RecipeError(
            f"the dataset {dataset} has no images; those that do: {', '.join(_IMAGES)}"
        )
    if encoder not in MODELS:
        raise RecipeError(
            f"--encoder {encoder}: there is no such encoder{suggestion([encoder], MODELS)}; it must be one of "
            f"{', '.join(MODELS)}"
        )
    images = _IMAGES[usual]
    return replace(images, encoder=encoder, size=whole_patches(images.size, patch_of(encoder)))


SIZES: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "ptv3": {
            "full": {},
            "small": {
                "enc_depths": [1, 1, 1, 2, 1],
                "enc_channels": [32, 32, 64, 128, 128],
                "enc_num_head": [2, 2, 4, 8, 8],
                "enc_patch_size": [256] * 5,
                "dec_depths": [1, 1, 1, 1],
                "dec_channels": [32, 32, 64, 128],
                "dec_num_head": [2, 2, 4, 8],
                "dec_patch_size": [256] * 4,
                "drop_path": 0.0,
            },
        },
        "minkunet": {
            "full": {},
            "small": {
                "base_channels": 16,
                "channels": [16, 32, 64, 64, 64, 48, 32, 32],
                "layers": [1, 1, 1, 1, 1, 1, 1, 1],
            },
        },
        "pointnext": {
            "full": {"width": 64, "blocks": [3, 6, 3, 3]},
            "small": {"width": 32, "blocks": [1, 1, 1, 1]},
        },
        "sonata": {
            "full": {},
            "tiny": {
                "enc_depths": [1, 1, 1, 3, 1],
                "enc_channels": [16, 32, 64, 128, 256],
                "enc_num_head": [1, 2, 4, 8, 16],
            },
            "small": {
                "enc_depths": [2, 2, 2, 6, 2],
                "enc_channels": [32, 64, 128, 256, 512],
                "enc_num_head": [2, 4, 8, 16, 32],
            },
            "base": {},
            "large": {
                "enc_channels": [64, 128, 256, 512, 768],
                "enc_num_head": [4, 8, 16, 32, 48],
            },
        },
        "utonia": {
            "full": {},
            "tiny": {
                "enc_depths": [2, 2, 2, 6, 2],
                "enc_channels": [18, 36, 72, 144, 216],
                "enc_num_head": [1, 2, 4, 8, 12],
            },
            "small": {
                "enc_depths": [2, 2, 2, 6, 2],
                "enc_channels": [36, 72, 144, 288, 432],
                "enc_num_head": [2, 4, 8, 16, 24],
            },
            "base": {},
        },
        "litept": {
            "full": {},
            "tiny": {
                "enc_depths": [1, 1, 1, 2, 1],
                "enc_channels": [24, 36, 72, 108, 216],
                "enc_num_head": [1, 2, 4, 6, 12],
                "enc_patch_size": [256] * 5,
                "dec_channels": [36, 36, 72, 108],
                "dec_num_head": [2, 2, 4, 6],
                "dec_patch_size": [256] * 4,
                "drop_path": 0.0,
            },
            "small": {},
            "base": {
                "enc_depths": [3, 3, 3, 12, 3],
                "enc_channels": [54, 108, 216, 432, 576],
                "enc_num_head": [3, 6, 12, 24, 32],
                "dec_channels": [72, 108, 216, 432],
                "dec_num_head": [4, 6, 12, 24],
            },
            "large": {
                "enc_depths": [3, 3, 3, 12, 3],
                "enc_channels": [72, 144, 288, 576, 864],
                "enc_num_head": [4, 8, 16, 32, 48],
                "dec_channels": [72, 144, 288, 576],
                "dec_num_head": [4, 8, 16, 32],
            },
        },
        "linear": {"full": {}, "small": {}},
    }
)
"""Constructor arguments of each backbone and size that differ from its full size. Of Sonata (and Concerto), Utonia
and LitePT all sizes but LitePT's tiny one are published."""


def recipe_of(dataset: str) -> Recipe:
    """The recipe of a dataset; a dataset of the user's own (``package.module:Class``) has that of ``folder``.

    Raises:
        RecipeError: an unknown dataset.
    """
    if is_plugin(dataset):
        return replace(FOLDER, dataset=dataset)
    if dataset not in RECIPES:
        raise RecipeError(f"--dataset {dataset}: is none of {', '.join(RECIPES)}")
    return RECIPES[dataset]


def recipe_for(dataset: str, backbone: str, size: str, tune: str = "all") -> Recipe:
    """The recipe of a dataset with a backbone of one size, for training what ``tune`` says.

    Raises:
        RecipeError: an unknown dataset, backbone or size.
    """
    recipe = replace(recipe_of(dataset), tune=tune)
    if is_plugin(backbone):
        if size != "full":
            raise RecipeError(
                f"--model-size {size}: {backbone} has only the size full; set arguments of its constructor with "
                "--override backbone_config.NAME=VALUE"
            )
        return replace(recipe, backbone=backbone)
    if backbone not in SIZES:
        raise RecipeError(f"--backbone {backbone}: is none of {', '.join(SIZES)}")
    if size not in SIZES[backbone]:
        raise RecipeError(
            f"--model-size {size}: {backbone} has only the sizes {', '.join(SIZES[backbone])}"
        )
    config = dict(SIZES[backbone][size])
    recipe = replace(recipe, backbone=backbone, backbone_config=config)
    return as_published(recipe, size)
