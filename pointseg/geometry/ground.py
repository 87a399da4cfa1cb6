"""The height of points above the ground, for airborne scans: a surface below them, found without labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pointseg.geometry.areas import BLOCK_M, find_areas
from pointseg.geometry.ground_surface import ground_surface, surface_settings

CELL_M = 1.0
"""Side of the cells whose lowest point is looked at, metres."""
MOST_CELLS = 25_000_000
"""Cells of wider clouds are larger: the memory stays near a gigabyte."""
AT_ONCE = 1_000_000
"""Points of a cloud in memory that are looked at in one go."""


def height_above_ground(coord: NDArray[np.float32]) -> NDArray[np.float32]:
    """Height of each point above the ground, as ``ground_surface`` finds it from the lowest point of each cell.

    Args:
        coord: (N, 3) finite positions, metres, z up.

    Returns:
        (N, 1) metres; a little below 0 where the ground is uneven within a cell.
    """
    if len(coord) == 0:
        return np.empty((0, 1), np.float32)
    pieces = [coord[start : start + AT_ONCE] for start in range(0, len(coord), AT_ONCE)]
    ground = Ground(lambda: pieces)
    return np.concatenate([ground.heights(piece) for piece in pieces])


def ground_settings() -> dict[str, float]:
    """What decides heights, for records of results: those of another filter are not kept."""
    return {
        "cell_m": CELL_M,
        "most_cells": MOST_CELLS,
        "block_m": BLOCK_M,
        **surface_settings(),
    }


class Ground:
    """The surfaces below the areas of a cloud, each with a grid of its own: empty space between them costs nothing."""

    def __init__(self, pieces: Callable[[], Iterable[NDArray[np.float32]]]) -> None:
        """Find them.

        Args:
            pieces: yields the points of the cloud as for ``find_areas``, the same ones each time it is called: twice.
        """
        self._areas = find_areas(pieces())
        wide = self._areas.high - self._areas.low
        self._cell_m = _cell_sides(wide)
        self._shape = (wide / self._cell_m[:, None]).astype(np.int64) + 1
        self._ends = self._shape.prod(1).cumsum()
        self._surfaces = self._found(pieces())

    def heights(self, coord: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 1) heights of (n, 3) points of the cloud, metres."""
        area, at = self._placed(coord)
        below = np.empty(len(coord), np.float32)
        order = np.argsort(area, kind="stable")
        for mine in np.split(order, np.flatnonzero(np.diff(area[order])) + 1):
            surface, place = self._surfaces[area[mine[0]]], (at[mine] - 0.5).T
            below[mine] = ndimage.map_coordinates(surface, place, order=1, mode="nearest")
        return (coord[:, 2] - below)[:, None]

    def _found(self, pieces: Iterable[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """The height of the ground in each cell of each area."""
        lowest = np.full(self._ends[-1], np.inf, np.float32)
        for coord in pieces:
            area, at = self._placed(coord)
            cell, shape = at.astype(np.int64), self._shape[area]
            place = self._ends[area] - shape.prod(1) + cell[:, 0] * shape[:, 1] + cell[:, 1]
            np.minimum.at(lowest, place, coord[:, 2])
        surfaces = []
        cells = np.split(lowest, self._ends[:-1])
        for values, shape, cell_m in zip(cells, self._shape, self._cell_m, strict=True):
            grid = values.reshape(shape)  # a single cell is its own ground: far points may be many
            surfaces.append(ground_surface(grid, float(cell_m)) if grid.size > 1 else grid)
        return surfaces

    def _placed(self, coord: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(n,) the area of each point, and (n, 2) its place in the grid of that area, in cells."""
        area = self._areas.of(coord)
        plane = coord[:, :2].astype(np.float64) - self._areas.low[area]
        return area, plane / self._cell_m[area, None]


def _cell_sides(wide: NDArray[np.float64]) -> NDArray[np.float64]:
    """(A,) sides of the cells of areas that are (A, 2) so wide, metres: none has too many, nor have all together."""
    plane = (wide + CELL_M).prod(1)
    cells = np.minimum(plane / CELL_M**2, MOST_CELLS).sum()
    sides = np.maximum(CELL_M, np.sqrt(plane / MOST_CELLS))
    return np.asarray(sides * max(1.0, math.sqrt(cells / MOST_CELLS)))
