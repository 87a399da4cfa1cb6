"""Clouds too large for one pass, cut from above into overlapping tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tile:
    """A part of the ground plan: its core, which is predicted, and points around it to look at."""

    low: tuple[float, float]
    """x and y where the core begins, itself included; -inf at the rim of the cloud."""
    high: tuple[float, float]
    """x and y where the core ends, itself excluded; inf at the rim."""
    outer_low: tuple[float, float]
    """x and y where the tile begins, with its margin."""
    outer_high: tuple[float, float]
    """x and y where the tile ends, itself included."""

    def select(
        self, coord: NDArray[np.floating[Any]]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(M,) the points of the tile among (N, 3), and which of these M are in its core."""
        x, y = coord[:, 0], coord[:, 1]
        inside = (x >= self.outer_low[0]) & (x <= self.outer_high[0])
        inside &= (y >= self.outer_low[1]) & (y <= self.outer_high[1])
        index = np.flatnonzero(inside)
        x, y = x[index], y[index]
        core = (x >= self.low[0]) & (x < self.high[0]) & (y >= self.low[1]) & (y < self.high[1])
        return index, core


def tiles(
    coord: NDArray[np.floating[Any]],
    *,
    max_points: int,
    margin_m: float,
    counts: NDArray[np.int64] | None = None,
    max_count: int | None = None,
    max_side_m: float = np.inf,
) -> list[Tile]:
    """Cut a cloud so that no tile, margins included, has more than a number of points.

    The ground plan is halved at the median of its longer side, whichever that is, until each part
    fits; so tiles come out nearly square, and as many as the density asks for. Where a part gets
    smaller than two margins, its margin shrinks with it: a cloud that is too dense for the whole
    margin is cut nevertheless. Where a part is too long for its side, and more than half of it empty, it
    is cut there: far outliers do not cut up the rest.

    Args:
        coord: (N, 3) finite positions, N >= 1.
        max_points: of a tile; exceeded only by points that lie exactly above each other.
        margin_m: how far around its core a tile reaches, metres.
        counts: (N,) what else each point stands for, say the points of its voxel.
        max_count: of the sum of ``counts`` over a tile. None: no matter.
        max_side_m: of a tile, metres: what the network's grid can hold.

    Returns:
        At least one tile; every point is in exactly one core.

    Raises:
        ValueError: a budget below 1, a margin below 0, no points.
    """
    if max_points < 1 or (max_count is not None and max_count < 1):
        raise ValueError(
            f"tiles: 'max_points' and 'max_count' must be >= 1, got {max_points} and {max_count}"
        )
    if not margin_m >= 0:
        raise ValueError(f"tiles: 'margin_m' must be >= 0 metres, got {margin_m}")
    if len(coord) == 0:
        raise ValueError("tiles: 'coord' must hold at least one point, got none")
    plan = np.ascontiguousarray(coord[:, :2], np.float64)
    weight = None if counts is None or max_count is None else counts
    everywhere = ((-np.inf, -np.inf), (np.inf, np.inf))
    pending = [(np.arange(len(plan)), *everywhere, float(margin_m))]
    found = []
    while pending:
        # ``index``: what the part above this one had; all that a tile here could have.
        index, low, high, margin = pending.pop()
        here = plan[index]
        core = ((here >= low) & (here < high)).all(1)
        first, last = here[core].min(0), here[core].max(0)
        side = last - first
        axis = int(side[1] > side[0])
        margin = min(margin, float(side[axis]) / 2)
        outer_low, outer_high = first - margin, last + margin
        held = ((here >= outer_low) & (here <= outer_high)).all(1)
        index = index[held]
        fits = len(index) <= max_points and bool((outer_high - outer_low <= max_side_m).all())
        if weight is not None and max_count is not None:
            fits &= int(weight[index].sum()) <= max_count
        if fits or side[axis] == 0:
            (x0, y0), (x1, y1) = outer_low.tolist(), outer_high.tolist()
            found.append(Tile(low, high, (x0, y0), (x1, y1)))
            continue
        values = here[core][:, axis]
        cut = _middle_of_gap(values) if side[axis] > max_side_m else None
        if cut is None:
            cut = float(np.median(values))
        if cut <= first[axis]:  # half of the points or more lie at the very edge
            cut = float(values[values > first[axis]].min())
        below, above = list(high), list(low)
        below[axis] = above[axis] = cut
        pending.append((index, (above[0], above[1]), high, margin))
        pending.append((index, low, (below[0], below[1]), margin))
    return found


def _middle_of_gap(values: NDArray[np.float64]) -> float | None:
    """Of the one that is longer than all the rest; None where there is no such gap."""
    ordered = np.sort(values)
    gaps = np.diff(ordered)
    widest = int(gaps.argmax())
    if gaps[widest] <= (ordered[-1] - ordered[0]) / 2:
        return None
    return float(ordered[widest] + gaps[widest] / 2)
