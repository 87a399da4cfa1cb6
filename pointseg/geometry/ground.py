"""The height of points above the ground, for airborne scans: a surface below them, found without labels."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pointseg.geometry.ground_surface import ground_surface, surface_settings

CELL_M = 1.0
"""Side of the cells whose lowest point is looked at, metres."""
MOST_CELLS = 25_000_000
"""Cells of wider clouds are larger: the memory stays near a gigabyte."""


def height_above_ground(coord: NDArray[np.float32]) -> NDArray[np.float32]:
    """Height of each point above the ground, as ``ground_surface`` finds it from the lowest point of each cell.

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


def ground_settings() -> dict[str, float]:
    """What decides heights, for records of results: those of another filter are not kept."""
    return {"cell_m": CELL_M, "most_cells": MOST_CELLS, **surface_settings()}


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
        return ground_surface(self._lowest.reshape(self._shape), self._cell_m)

    def _plane(self, coord: NDArray[np.float32]) -> NDArray[np.float64]:
        return coord[:, :2].astype(np.float64) - self._low
