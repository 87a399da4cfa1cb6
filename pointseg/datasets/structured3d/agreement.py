"""Checks that the panorama of a room and its perspective views show the same place.

The dataset's README and its viewer disagree about where panoramas look. Depth maps of both kinds decide it, in
every room: points of the panorama that a perspective view shows must be at the depth that it has there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dinomed3d.lifting import Camera
from pointseg.datasets.errors import DatasetError

TOLERANCE_M = 0.05
SAMPLE = 20_000
"""Points of the panorama that are compared."""
BETTER = 0.2
"""Another orientation is held to be the true one if this many more of the points agree, as a share."""
OTHERS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"turned by 180 degrees": (-1.0, -1.0), "mirrored": (-1.0, 1.0)}
)
"""Other orientations of a panorama: factors of x and y from its centre."""

DepthView = tuple[Camera, NDArray[np.float32]]
"""A camera and its (H, W) depth map in metres."""


def check_agreement(
    points: NDArray[np.float64], centre: NDArray[np.float64], views: Sequence[DepthView], where: str
) -> None:
    """Refuse a panorama that fits the perspective views better in another orientation.

    Args:
        points: (N, 3) of the panorama, metres.
        centre: (3,) of the panorama.
        views: the perspective views.
        where: the room, for messages.

    Raises:
        DatasetError: it does.
    """
    sample = points[:: max(1, -(-len(points) // SAMPLE))] - centre
    stated = agreeing_share(sample + centre, views)
    for what, (x, y) in OTHERS.items():
        share = agreeing_share(sample * (x, y, 1.0) + centre, views)
        if share > stated + BETTER:
            raise DatasetError(
                f"{where}: {stated:.0%} of the panorama's points agree with the depth of the perspective views, "
                f"{share:.0%} if it is {what}; unpack panorama and perspective views of this room again"
            )


def agreeing_share(points: NDArray[np.float64], views: Sequence[DepthView]) -> float:
    """Share of the points in some view that are at the depth that the view has there; 0 if none is in view.

    Args:
        points: (N, 3) metres.
        views: cameras with depth maps.
    """
    shown, agree = 0, 0
    for camera, depth in views:
        pose, intrinsics = camera.world_to_camera.numpy(), camera.intrinsics.numpy()
        local = points @ pose[:3, :3].T + pose[:3, 3]
        local = local[local[:, 2] > TOLERANCE_M]
        pixel = np.floor((local / local[:, 2:]) @ intrinsics.T)[:, :2]
        inside = ((pixel >= 0) & (pixel < (camera.size[1], camera.size[0]))).all(1)
        column, row = pixel[inside].astype(np.int64).T
        there, here = depth[row, column], local[inside, 2]
        shown += int((there > 0).sum())
        agree += int(((there > 0) & (np.abs(there - here) < TOLERANCE_M)).sum())
    return agree / shown if shown else 0.0
