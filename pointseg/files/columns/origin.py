"""Origins, with which float32 keeps millimetres of georeferenced positions; points without a position."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.scene import Scene

LARGE = 1e4
"""Metres from the origin beyond which float32 keeps less than a millimetre."""
STEP = 100.0
"""Origins are multiples of this, metres: round numbers that float64 holds exactly."""


def split_origin(
    xyz: NDArray[Any], origin: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Positions relative to a round origin near their middle; along axes with small values it is 0.

    Args:
        xyz: (N, 3) positions as the file has them, floats; some may be NaN or infinite.
        origin: (3,) of the cloud that these points are a part of; None: they are the cloud.

    Returns:
        (N, 3) float32, and (3,) the origin: the first plus the second are the positions, to within
        half a millimetre in clouds of up to 10 km.
    """
    if origin is None:
        origin = origin_of(xyz)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: no position
        if not origin.any():
            return np.ascontiguousarray(xyz, np.float32), origin
        coord = np.empty(xyz.shape, np.float32)
        for axis in range(3):  # one axis at a time: no second copy in float64
            coord[:, axis] = xyz[:, axis].astype(np.float64, copy=False) - origin[axis]
    return coord, origin


def origin_of(xyz: NDArray[Any]) -> NDArray[np.float64]:
    """(3,) a round origin near the middle of (N, 3) positions; 0 along axes with small values."""
    origin = np.zeros(3)
    for axis in range(3):
        values = xyz[:, axis]
        if not np.isfinite(values).all():
            values = values[np.isfinite(values)]
        if len(values) and max(values.max(), -values.min()) > LARGE:
            # The median: one point far out does not take the precision of all others.
            origin[axis] = STEP * round(float(np.median(values)) / STEP)
    return origin


def finite_points(scene: Scene) -> tuple[Scene, NDArray[np.int64]]:
    """The points of a scene that have a position; depth cameras leave NaN where they saw nothing.

    Returns:
        The scene without the others (the scene itself where there are none), and (M,) the rows of
        ``scene`` that its points were.
    """
    finite = np.isfinite(scene.coord).all(1)
    index = np.flatnonzero(finite)
    return (scene if len(index) == len(scene) else scene.select(index)), index
