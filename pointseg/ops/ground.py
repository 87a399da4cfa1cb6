"""The height of points above the ground, for airborne scans: a surface below them, found without labels."""

from __future__ import annotations

import math
from functools import cached_property

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
    ground = Ground(coord[:, :2].min(0), coord[:, :2].max(0))
    ground.add(coord)
    return ground.heights(coord)


class Ground:
    """The surface below a cloud, found from its points piece by piece."""

    def __init__(self, low: NDArray[np.float32], high: NDArray[np.float32]) -> None:
        """Begin without points.

        Args:
            low: (2,) minimum of x and y of the whole cloud, metres.
            high: (2,) maximum.
        """
        self._low = low
        wide = high.astype(np.float64) - low
        self._cell_m = max(CELL_M, math.sqrt((wide[0] + CELL_M) * (wide[1] + CELL_M) / MOST_CELLS))
        self._shape = (wide / self._cell_m).astype(np.int64) + 1
        self._lowest = np.full(self._shape.prod(), np.inf, np.float32)

    def add(self, coord: NDArray[np.float32]) -> None:
        """Use (n, 3) points of the cloud, before the first height is asked for."""
        cell = (self._plane(coord) / self._cell_m).astype(np.int64)
        np.minimum.at(self._lowest, cell[:, 0] * self._shape[1] + cell[:, 1], coord[:, 2])

    def heights(self, coord: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 1) heights of (n, 3) points of the cloud, metres."""
        at = (self._plane(coord) / self._cell_m - 0.5).T
        below = ndimage.map_coordinates(self._surface, at, order=1, mode="nearest")
        return (coord[:, 2] - below).astype(np.float32)[:, None]

    @cached_property
    def _surface(self) -> NDArray[np.float32]:
        lowest = self._lowest.reshape(self._shape)
        nearest = ndimage.distance_transform_edt(
            np.isinf(lowest), return_distances=False, return_indices=True
        )
        side = 2 * int(WINDOW_M / self._cell_m / 2) + 1
        ground: NDArray[np.float32] = ndimage.grey_opening(
            lowest[tuple(nearest)], size=(side, side), mode="nearest"
        )
        return ground

    def _plane(self, coord: NDArray[np.float32]) -> NDArray[np.float64]:
        return coord[:, :2].astype(np.float64) - self._low
