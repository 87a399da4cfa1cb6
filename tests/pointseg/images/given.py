"""Frames in memory for tests: a wall of points 2 m before a camera of 40 x 60 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.images.readers.frame import Frame, make_camera
from pointseg.scene import Scene

K = np.array([[30.0, 0, 30], [0, 30, 20], [0, 0, 1]])
SIZE = (40, 60)


@dataclass(frozen=True, eq=False)
class Given:
    """An image or a depth map that is there already."""

    pixels: NDArray[Any]
    name: str = "given.png"

    def __str__(self) -> str:
        return self.name

    def read(self) -> NDArray[Any]:
        return self.pixels

    def key(self) -> str:
        return self.name


def frame(
    pose: Any = None,
    *,
    depth: NDArray[Any] | None = None,
    image: NDArray[Any] | None = None,
    name: str = "view",
) -> Frame:
    """``pose``: world to camera; nothing: the camera stands at the origin and looks along z."""
    pixels = np.zeros((*SIZE, 3), np.uint8) if image is None else image
    return Frame(
        name=name,
        camera=make_camera(
            name,
            intrinsics=K,
            size=SIZE,
            world_to_camera=np.eye(4) if pose is None else pose,
        ),
        image=Given(pixels),
        depth=None if depth is None else Given(depth.astype(np.float32), f"{name}_depth.png"),
    )


def shifted(*shift: float) -> NDArray[np.float64]:
    pose = np.eye(4)
    pose[:3, 3] = shift
    return pose


def scene(points: Any, **fields: Any) -> Scene:
    return Scene(coord=np.array(points, np.float32).reshape(-1, 3), fields=fields, name="room")


def wall(distance: float = 2.0) -> Scene:
    """Nine points, 1 m apart: with K those 1 m from the middle are 15 pixels from it, at 2 m."""
    x, y = np.meshgrid([-1.0, 0, 1], [-1.0, 0, 1])
    return scene(np.stack([x.ravel(), y.ravel(), np.full(9, distance)], 1))
