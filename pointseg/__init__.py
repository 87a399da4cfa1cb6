"""Point cloud segmentation with lifted 2D features (DITR, D-DITR) that installs and runs anywhere.

Names load when first used, so that ``import pointseg`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pointseg.backbones import build_backbone
    from pointseg.cloud import Cloud, collate
    from pointseg.images.readers.arrays import array_frame
    from pointseg.lifting.lift_features import lift_features
    from pointseg.loading.pretrained_input import pretrained_input
    from pointseg.prediction.in_memory import PointSegmenter, load_model
    from pointseg.scene import Scene
    from pointseg.segmenter import Segmenter

__version__ = "0.1.0"
__all__ = [
    "Cloud",
    "PointSegmenter",
    "Scene",
    "Segmenter",
    "__version__",
    "array_frame",
    "build_backbone",
    "collate",
    "lift_features",
    "load_model",
    "pretrained_input",
]

_HOMES = {
    "Cloud": "pointseg.cloud",
    "PointSegmenter": "pointseg.prediction.in_memory",
    "Scene": "pointseg.scene",
    "Segmenter": "pointseg.segmenter",
    "array_frame": "pointseg.images.readers.arrays",
    "build_backbone": "pointseg.backbones",
    "collate": "pointseg.cloud",
    "lift_features": "pointseg.lifting.lift_features",
    "load_model": "pointseg.prediction.in_memory",
    "pretrained_input": "pointseg.loading.pretrained_input",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pointseg' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
