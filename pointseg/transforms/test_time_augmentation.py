"""Test-time augmentation: the variants of a scene whose predicted scores are summed.

Source: the sets are those of the test configurations of DITR (Knaebel 2025, arXiv:2503.18944) and of
Point Transformer V3 (Wu 2024, arXiv:2312.10035).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from pointseg.scene import Scene
from pointseg.transforms.geometric import flip, rotate


@dataclass(frozen=True, kw_only=True)
class TTAVariant:
    """One variant of a scene: rotated, scaled and flipped about the origin, in this order."""

    rotation_z_deg: float = 0.0
    """The scene is rotated about z by so many degrees."""
    scale: float = 1.0
    """Coordinates are multiplied by this factor, above 0."""
    flip_x: bool = False
    """Whether x becomes -x."""
    flip_y: bool = False
    """Whether y becomes -y."""

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"TTAVariant: 'scale' must be above 0, got {self.scale}")

    def apply(self, scene: Scene) -> Scene:
        """The augmented scene: points (in the same order) and normals; images are not touched."""
        scene = rotate(scene, "z", self.rotation_z_deg) if self.rotation_z_deg else scene
        if self.scale != 1:
            scene = scene.moved(scene.coord * np.float32(self.scale))
        return flip(scene, x=self.flip_x, y=self.flip_y)


_QUARTERS = (0.0, 90.0, 180.0, 270.0)
_SCALED_AND_FLIPPED = tuple(
    TTAVariant(scale=scale, flip_x=both, flip_y=both)
    for both in (False, True)
    for scale in (0.9, 0.95, 1.0, 1.05, 1.1)
)

TTA_SETS: Mapping[str, tuple[TTAVariant, ...]] = MappingProxyType(
    {
        "single": (TTAVariant(),),
        "scannet": (
            *(
                TTAVariant(rotation_z_deg=degrees, scale=scale)
                for scale in (1.0, 0.95, 1.05)
                for degrees in _QUARTERS
            ),
            TTAVariant(flip_x=True, flip_y=True),
        ),
        "s3dis": _SCALED_AND_FLIPPED,
        "nuscenes": _SCALED_AND_FLIPPED,
        "semantickitti": tuple(TTAVariant(rotation_z_deg=degrees) for degrees in _QUARTERS),
    }
)
"""The sets of augmentations by name; "single" is one pass over the scene as it is."""
