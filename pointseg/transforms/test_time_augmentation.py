"""The variants of a scene whose predictions are summed at test time (section 2.13 of the method's description)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from pointseg.scene import Scene
from pointseg.transforms.geometric import flip, rotate


@dataclass(frozen=True, kw_only=True)
class TestView:
    """A scene turned, scaled and mirrored, in this order, about the origin; its points stay in order."""

    __test__: ClassVar[bool] = False  # for pytest, which takes the name for that of a test

    rotation_z_deg: float = 0.0
    scale: float = 1.0
    flip_x: bool = False
    flip_y: bool = False

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"TestView: 'scale' must be above 0, got {self.scale}")

    def apply(self, scene: Scene) -> Scene:
        """The scene as this view has it, normals included; images are not touched."""
        scene = rotate(scene, "z", self.rotation_z_deg) if self.rotation_z_deg else scene
        if self.scale != 1:
            scene = scene.moved(scene.coord * np.float32(self.scale))
        return flip(scene, x=self.flip_x, y=self.flip_y)


_QUARTERS = (0.0, 90.0, 180.0, 270.0)
_SCALES = (0.9, 0.95, 1.0, 1.05, 1.1)

SINGLE = (TestView(),)
SCANNET_VIEWS = (
    *(TestView(rotation_z_deg=r, scale=s) for s in (1.0, 0.95, 1.05) for r in _QUARTERS),
    TestView(flip_x=True, flip_y=True),
)
S3DIS_VIEWS = tuple(
    TestView(scale=scale, flip_x=both, flip_y=both) for both in (False, True) for scale in _SCALES
)
NUSCENES_VIEWS = S3DIS_VIEWS
KITTI_VIEWS = tuple(TestView(rotation_z_deg=degrees) for degrees in _QUARTERS)

VIEWS: Mapping[str, tuple[TestView, ...]] = MappingProxyType(
    {
        "single": SINGLE,
        "scannet": SCANNET_VIEWS,
        "s3dis": S3DIS_VIEWS,
        "nuscenes": NUSCENES_VIEWS,
        "semantickitti": KITTI_VIEWS,
    }
)
"""The sets by name."""
