"""The height of points above the ground, for airborne scans: a surface below them, found without labels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CELL_M = 1.0
"""Side of the cells whose lowest point is looked at, metres."""
WINDOW_M = 30.0
"""What is narrower than this stands on the ground, such as houses and trees; metres."""
MOST_CELLS = 25_000_000
"""Cells of wider clouds are larger: the memory stays below a gigabyte."""


def height_above_ground(coord: NDArray[np.float32]) -> NDArray[np.float32]:
    """Height of each point above the ground.

    The ground is the morphological opening of the lowest points of cells (Zhang et al., IEEE TGRS 2003, with one
    window): what is narrower than the window is taken away, slopes stay. Under a hall that is wider in both
    directions it finds the roof.

    Args:
        coord: (N, 3) finite positions, metres, z up.

    Returns:
        (N, 1) metres; a little below 0 where the ground is uneven within a cell.
    """
    if len(coord) == 0:
        return np.empty((0, 1), np.float32)
    plane = coord[:, :2].astype(np.float64) - coord[:, :2].min(0)
    wide = plane.max(0)
    cell_m = max(CELL_M, math.sqrt((wide[0] + CELL_M) * (wide[1] + CELL_M) / MOST_CELLS))
    cell = (plane / cell_m).astype(np.int64)
    shape = cell.max(0) + 1
    lowest = np.full(shape.prod(), np.inf, np.float32)
    np.minimum.at(lowest, cell[:, 0] * shape[1] + cell[:, 1], coord[:, 2])
    lowest = lowest.reshape(shape)
    nearest = ndimage.distance_transform_edt(
        np.isinf(lowest), return_distances=False, return_indices=True
    )
    side = 2 * int(WINDOW_M / cell_m / 2) + 1
    ground = ndimage.grey_opening(lowest[tuple(nearest)], size=(side, side), mode="nearest")
    below = ndimage.map_coordinates(ground, (plane / cell_m - 0.5).T, order=1, mode="nearest")
    return (coord[:, 2] - below).astype(np.float32)[:, None]
