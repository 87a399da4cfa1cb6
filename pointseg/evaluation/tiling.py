"""Large clouds, cut in the ground plane into overlapping tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tile:
    """A rectangle of the ground plane: its core is predicted, the margin around it gives context."""

    low: tuple[float, float]
    """Minimum x and y of the core, inclusive; -inf at the border of the cloud."""
    high: tuple[float, float]
    """Maximum x and y of the core, exclusive; inf at the border of the cloud."""
    outer_low: tuple[float, float]
    """Minimum x and y of the tile with its margin, inclusive."""
    outer_high: tuple[float, float]
    """Maximum x and y of the tile with its margin, inclusive."""

    def select(
        self, coord: NDArray[np.floating[Any]]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(M,) indices of the points of the tile among (N, 3), and (M,) whether they are in its core."""
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
    """Cut a cloud into tiles with at most ``max_points`` points each, margins included.

    The ground plane is halved at the median of its longer side until each rectangle fits, so tiles are
    nearly square and smaller where points are dense. The margin of a rectangle narrower than two margins
    shrinks, so that very dense clouds can be cut as well. A rectangle longer than ``max_side_m`` with a gap
    over more than half of its length is cut in the gap: far outliers do not cut up the rest.

    Args:
        coord: (N, 3) finite positions, N >= 1.
        max_points: points of a tile; exceeded only by points exactly above each other.
        margin_m: width of the margin around the core of a tile, metres.
        counts: (N,) weight of each point, such as the number of points of its voxel.
        max_count: sum of ``counts`` over a tile at most. None: no limit.
        max_side_m: length of a tile, metres, that the grid of the network can hold.

    Returns:
        At least one tile; every point is in exactly one core.

    Raises:
        ValueError: a limit below 1, a margin below 0, no points.
    """
    _check(len(coord), max_points, max_count, margin_m)
    ground = np.ascontiguousarray(coord[:, :2], np.float64)
    weight = None if counts is None or max_count is None else counts
    everywhere = ((-np.inf, -np.inf), (np.inf, np.inf))
    pending = [(np.arange(len(ground)), *everywhere, float(margin_m))]
    found = []
    while pending:
        # ``index``: points of the enclosing rectangle, all that this tile can contain.
        index, low, high, margin = pending.pop()
        here = ground[index]
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
        cut = _cut(here[core][:, axis], in_gap=bool(side[axis] > max_side_m))
        below, above = list(high), list(low)
        below[axis] = above[axis] = cut
        pending.append((index, (above[0], above[1]), high, margin))
        pending.append((index, low, (below[0], below[1]), margin))
    return found


def _check(points: int, max_points: int, max_count: int | None, margin_m: float) -> None:
    if max_points < 1 or (max_count is not None and max_count < 1):
        limits = f"{max_points} and {max_count}"
        raise ValueError(f"tiles: 'max_points' and 'max_count' must be >= 1, got {limits}")
    if not margin_m >= 0:
        raise ValueError(f"tiles: 'margin_m' must be >= 0 metres, got {margin_m}")
    if points == 0:
        raise ValueError("tiles: 'coord' must hold at least one point, got none")


def _cut(values: NDArray[np.float64], *, in_gap: bool) -> float:
    """Where to cut: at the median, or if wanted in the middle of a gap longer than half of the extent."""
    ordered = np.sort(values)
    gaps = np.diff(ordered)
    widest = int(gaps.argmax())
    if in_gap and gaps[widest] > (ordered[-1] - ordered[0]) / 2:
        return float(ordered[widest] + gaps[widest] / 2)
    median = float(np.median(values))
    if median > ordered[0]:
        return median
    return float(values[values > ordered[0]].min())  # half of the points or more are at the minimum
