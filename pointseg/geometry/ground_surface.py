"""The ground below the lowest points of cells: the progressive morphological filter.

Source: Zhang et al., A progressive morphological filter for removing nonground measurements from airborne LIDAR data,
IEEE TGRS 2003, with windows that grow by one cell on each side. Differs: cells that stand on the ground get its height
between those around them by straight lines, and single low cells (echoes by several reflections) are left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

WINDOW_M = 60.0
"""What is narrower than this in one direction stands on the ground, such as houses and trees; metres."""
SLOPE = 0.3
"""Rise of the ground for each metre that a window grows, beyond which its middle stands on the ground."""
STEP_M = 0.15
"""Height of what is not looked at: stones, roughness; metres."""
PIT_SLOPE = 5.0
"""Rise from a cell to its neighbours on all sides that no ground has."""
PIT_REACH, PIT_COMPANY = 5, 3
"""Cells around a pit, and how many of them are as low where it is none: ground seen here and there below trees."""
ROWS = 256
"""Rows of cells that are filled at once."""


def surface_settings() -> dict[str, float]:
    """All numbers that decide the surface."""
    return {
        "window_m": WINDOW_M,
        "slope": SLOPE,
        "step_m": STEP_M,
        "pit_slope": PIT_SLOPE,
        "pit_reach": PIT_REACH,
        "pit_company": PIT_COMPANY,
    }


def ground_surface(lowest: NDArray[np.float32], cell_m: float) -> NDArray[np.float32]:
    """The height of the ground in each cell.

    A cell is above the ground if an opening with some window (the largest of the smallest values around it) takes
    more from it than ``STEP_M`` and the rise of a slope: houses vanish at once as soon as a window is wider than they
    are, slopes and hills lose little with each window, at edges as well.

    Args:
        lowest: (H, W) lowest point of each cell, metres; infinite where there is none; some cell has one.
        cell_m: side of a cell, metres.
    """
    is_open = np.isinf(lowest)
    filled = _nearest(lowest, is_open)
    pits = _pits(lowest, filled, PIT_SLOPE * cell_m)
    filled = _nearest(filled, pits)
    return _between(filled, is_open | pits | _objects(filled, cell_m))


def _pits(
    lowest: NDArray[np.float32], filled: NDArray[np.float32], depth_m: float
) -> NDArray[np.bool_]:
    """(H, W) which cells lie so deep below their neighbours, and below nearly all cells farther away, too."""
    found = ndimage.grey_closing(filled, size=(3, 3), mode="nearest") - filled > depth_m
    row, column = np.nonzero(found)
    limit, company = filled[row, column] + depth_m, np.zeros(len(row), np.int32)
    around = np.pad(lowest, PIT_REACH, constant_values=np.inf)
    for down, right in np.ndindex(2 * PIT_REACH + 1, 2 * PIT_REACH + 1):
        if max(abs(down - PIT_REACH), abs(right - PIT_REACH)) > 1:  # neighbours may be the same pit
            company += around[row + down, column + right] < limit
    found[row, column] = company < PIT_COMPANY
    return found


def _objects(surface: NDArray[np.float32], cell_m: float) -> NDArray[np.bool_]:
    """(H, W) which cells stand on the ground."""
    found = np.zeros(surface.shape, np.bool_)
    last, most = surface, SLOPE * 2 * cell_m + STEP_M
    for reach in range(1, int(WINDOW_M / cell_m / 2) + 1):
        side = 2 * reach + 1
        opened = ndimage.grey_opening(surface, size=(side, side), mode="nearest")
        found |= last - opened > most
        last = opened
    return found


def _nearest(values: NDArray[np.float32], unknown: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The same with unknown cells as the nearest known one."""
    if not unknown.any() or unknown.all():
        return values
    place = ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True)
    found: NDArray[np.float32] = values[tuple(place)]
    return found


def _between(surface: NDArray[np.float32], unknown: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The same with unknown cells on straight lines between the known ones of their row and of their column.

    The shorter of the two lines counts more; where there is neither, the nearest known cell does.
    """
    result = _nearest(surface, unknown)
    columns = _ends(unknown, axis=0)
    for start in range(0, len(surface), ROWS):
        part = slice(start, start + ROWS)
        rows, at = np.nonzero(unknown[part])
        before, after = (end[part][rows, at] for end in columns)
        left, right = (end[rows, at] for end in _ends(unknown[part], axis=1))
        rows += start
        weights, values = np.zeros(len(at)), np.zeros(len(at))
        for first, second, place, low, high in (
            (before, after, rows, (before, at), (after, at)),
            (left, right, at, (rows, left), (rows, right)),
        ):
            held = (first >= 0) & (second < surface.shape[0 if place is rows else 1])
            one, other = (
                surface[row[held], column[held]].astype(np.float64) for row, column in (low, high)
            )
            gap = (second - first)[held]
            values[held] += (one + (other - one) * (place - first)[held] / gap) / gap
            weights[held] += 1 / gap
        held = weights > 0
        result[rows[held], at[held]] = values[held] / weights[held]
    return result


def _ends(unknown: NDArray[np.bool_], axis: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """For each cell the last known one before it along an axis, -1 if there is none, and the first one behind it."""
    count = unknown.shape[axis]
    places = np.expand_dims(np.arange(count, dtype=np.int32), 1 - axis)
    before = np.maximum.accumulate(np.where(unknown, np.int32(-1), places), axis=axis)
    behind = np.flip(np.where(unknown, np.int32(count), places), axis)
    return before, np.flip(np.minimum.accumulate(behind, axis=axis), axis)
