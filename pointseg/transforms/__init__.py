"""What is done to a scene before it becomes part of a batch: selecting, moving, colouring, in a row."""

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
)
from pointseg.transforms.pipeline import Compose, Transform, evaluation, indoor, outdoor
from pointseg.transforms.select import DropOutside, GridSample, RandomDrop, SphereCrop
from pointseg.transforms.test_time_augmentation import (
    KITTI_VIEWS,
    NUSCENES_VIEWS,
    S3DIS_VIEWS,
    SCANNET_VIEWS,
    SINGLE,
    VIEWS,
    TestView,
)

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
    "KITTI_VIEWS",
    "NUSCENES_VIEWS",
    "RandomDrop",
    "RandomFlip",
    "RandomJitter",
    "RandomRotate",
    "RandomScale",
    "S3DIS_VIEWS",
    "SCANNET_VIEWS",
    "SINGLE",
    "SphereCrop",
    "TestView",
    "Transform",
    "VIEWS",
    "evaluation",
    "indoor",
    "outdoor",
]
