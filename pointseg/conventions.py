"""Names that configurations and commands accept: backbones, datasets, units, axes. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

BACKBONES = ("ptv3", "minkunet", "pointnext", "sonata", "utonia", "litept", "linear")
"""3D networks that ``pointseg.backbones.build_backbone`` builds."""
PRETRAINED_ENCODERS = ("sonata", "utonia")
"""3D networks that are published as encoders without a decoder; Concerto is of "sonata"."""
PRETRAINED_BACKBONES = (*PRETRAINED_ENCODERS, "litept")
"""3D networks that ``pointseg.backbones.read_pretrained`` reads from files."""
MODEL_SIZES = ("tiny", "small", "base", "large", "full")
"""Sizes of backbones, of which each has some (``pointseg.config.presets.SIZES``)."""
TUNES = ("linear", "decoder", "all")
"""What is trained of a network, ``Recipe.tune``."""
DEFAULT_ENCODER = "vit_small_patch16_dinov3"
"""The image encoder unless another one is chosen, one of ``dinomed3d.lifting.MODELS``."""
PRECISIONS = ("float32", "float16", "bfloat16")
"""Number formats in which networks compute."""
CHOOSING_FUSES = ("last", "random", "nearest")
"""Ways to choose one of the views that see a point; the loader chooses, and its feature is read there alone."""
FUSES = (*CHOOSING_FUSES, "mean", "max")
"""Ways to make one feature of those of several views, ``ImageConfig.fuse``."""
LIFT_FUSES = ("mean", "last", "nearest", "max")
"""Ways to make one feature of those of several views where nothing is trained, ``pointseg.lift_features``."""
SAMPLES = ("nearest", "bilinear")
"""Ways to read a feature map at a projected point, ``ImageConfig.sample``."""
ImagePooling = Literal["max", "masked_max", "masked_mean"]
"""How image features are pooled. max: over all points of a cell, including the zeros of points that no image
shows, as in DITR's released code. masked_max and masked_mean: over the points that an image shows."""
POOLINGS: tuple[str, ...] = get_args(ImagePooling)
"""Names of ``ImagePooling``, ``ImageConfig.pooling``."""
TTA_NAMES = ("single", "scannet", "s3dis", "nuscenes", "semantickitti")
"""Sets of test-time augmentations, ``pointseg.transforms.TTA_SETS``."""
NORMAL_ORIENTATIONS = ("middle", "origin", "up")
"""Where estimated normals point, ``pointseg.prediction.inputs.prepare_cloud.ORIENTATIONS``."""
PREPARED_DATASETS = (
    "scannet",
    "scannet200",
    "s3dis",
    "structured3d",
    "semantickitti",
    "nuscenes",
    "waymo",
)
"""Public datasets, which ``pointseg-prepare`` reads."""
DATASETS = ("synthetic", "folder", *PREPARED_DATASETS)
"""Datasets that ``pointseg.datasets.open_dataset`` opens."""
UNITS_M: Mapping[str, float] = MappingProxyType(
    {"metre": 1.0, "centimetre": 0.01, "millimetre": 0.001, "foot": 0.3048}
)
"""Metres per unit of coordinates, by the name of the unit."""
UP_AXES = ("z", "y", "-y")
"""Axes of a file's coordinates that can be the vertical one."""
PICTURE_UP_AXES = ("z", "-z", "y", "-y", "x", "-x")
"""Axes of a cloud's coordinates that can point up in pictures; -y in the coordinates of a depth camera."""
COLOURINGS = ("class", "reference", "errors", "colour", "confidence", "intensity", "height")
"""What colours can show in ``pointseg-view``, the usual choice first."""
THINNINGS = ("random", "voxel")
"""Ways to choose the points that are shown, ``pointseg.viewing.thinning.THINNING``."""
