"""Transforms of a scene before it becomes part of a batch: sampling, geometry, colour."""

from pointseg.transforms.augmentation import Augmentation
from pointseg.transforms.colour import AutoContrast, ColorJitter, ColorShift
from pointseg.transforms.geometric import (
    CenterShift,
    ClampToBox,
    ElasticDistortion,
    RandomFlip,
    RandomJitter,
    RandomRotate,
    RandomScale,
    UnitSphere,
)
from pointseg.transforms.input_transform import InputTransform
from pointseg.transforms.pipeline import Compose, Transform, evaluation, indoor, outdoor
from pointseg.transforms.select import DropOutside, GridSample, RandomDrop, SphereCrop
from pointseg.transforms.test_time_augmentation import TTA_SETS, TTAVariant

__all__ = [
    "Augmentation",
    "AutoContrast",
    "CenterShift",
    "ClampToBox",
    "ColorJitter",
    "ColorShift",
    "Compose",
    "DropOutside",
    "ElasticDistortion",
    "GridSample",
    "InputTransform",
    "RandomDrop",
    "RandomFlip",
    "RandomJitter",
    "RandomRotate",
    "RandomScale",
    "SphereCrop",
    "TTA_SETS",
    "TTAVariant",
    "Transform",
    "UnitSphere",
    "evaluation",
    "indoor",
    "outdoor",
]
