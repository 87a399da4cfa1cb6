"""Large clouds, cut in the ground plane into overlapping tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Corner = tuple[float, float]
"""x and y in the ground plane, metres."""


@dataclass(frozen=True)
class Tile:
    """A rectangle of the ground plane: its core is predicted, the margin around it gives context."""

    low: Corner
    """Minimum x and y of the core, inclusive; -inf at the border of the cloud."""
    high: Corner
    """Maximum x and y of the core, exclusive; inf at the border of the cloud."""
    outer_low: Corner
    """Minimum x and y of the tile with its margin, inclusive."""
    outer_high: Corner
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


class Places(Protocol):
    """Points of the ground plane within a rectangle, each with a weight; in memory or not."""

    def __len__(self) -> int: ...

    def weight(self) -> int:
        """The sum of all weights."""

    def within(self, low: Corner, high: Corner) -> Places:
        """Those in a smaller rectangle, its borders included."""

    def bounds(self, low: Corner, high: Corner) -> tuple[Corner, Corner]:
        """Minimum and maximum of those from ``low`` on that lie before ``high``, of which there are some."""

    def middle(self, low: Corner, high: Corner, axis: int) -> float:
        """The median of the same points along an axis."""

    def around(self, low: Corner, high: Corner, axis: int, place: float) -> Corner:
        """Of the same points along an axis, the last at most at a place, and the first beyond it."""


class ArrayPlaces:
    """Places in memory."""

    def __init__(self, ground: NDArray[np.float64], weights: NDArray[np.int64] | None) -> None:
        self.ground, self.weights = ground, weights

    def __len__(self) -> int:
        return len(self.ground)

    def weight(self) -> int:
        """The sum of all weights."""
        return len(self) if self.weights is None else int(self.weights.sum())

    def within(self, low: Corner, high: Corner) -> ArrayPlaces:
        """Those in a smaller rectangle, its borders included."""
        held = ((self.ground >= low) & (self.ground <= high)).all(1)
        weights = None if self.weights is None else self.weights[held]
        return ArrayPlaces(self.ground[held], weights)

    def core(self, low: Corner, high: Corner) -> NDArray[np.float64]:
        """(n, 2) those from ``low`` on that lie before ``high``."""
        return self.ground[((self.ground >= low) & (self.ground < high)).all(1)]

    def bounds(self, low: Corner, high: Corner) -> tuple[Corner, Corner]:
        """Minimum and maximum of the core."""
        core = self.core(low, high)
        (x0, y0), (x1, y1) = core.min(0).tolist(), core.max(0).tolist()
        return (x0, y0), (x1, y1)

    def middle(self, low: Corner, high: Corner, axis: int) -> float:
        """The median of the core along an axis."""
        return float(np.median(self.core(low, high)[:, axis]))

    def around(self, low: Corner, high: Corner, axis: int, place: float) -> Corner:
        """The last of the core at most at a place, and the first beyond it."""
        values = self.core(low, high)[:, axis]
        upto = values <= place
        return float(values[upto].max(initial=-np.inf)), float(values[~upto].min(initial=np.inf))


def tiles(
    coord: NDArray[np.floating[Any]],
    *,
    max_points: int,
    margin_m: float,
    counts: NDArray[np.int64] | None = None,
    max_count: int | None = None,
    max_side_m: float = np.inf,
) -> list[Tile]:
    """Cut a cloud into tiles, as :func:`tiles_of`.

    Args:
        coord: (N, 3) finite positions, N >= 1.
        max_points: points of a tile.
        margin_m: width of the margin around the core of a tile, metres.
        counts: (N,) weight of each point, such as the number of points of its voxel.
        max_count: sum of ``counts`` over a tile at most. None: no limit.
        max_side_m: length of a tile, metres, that the grid of the network can hold.

    Raises:
        ValueError: a limit below 1, a margin below 0, no points.
    """
    _check(len(coord), max_points, max_count, margin_m)
    places = ArrayPlaces(np.ascontiguousarray(coord[:, :2], np.float64), counts)
    return tiles_of(
        places,
        max_points=max_points,
        margin_m=margin_m,
        max_count=None if counts is None else max_count,
        max_side_m=max_side_m,
    )


def tiles_of(
    places: Places,
    *,
    max_points: int,
    margin_m: float,
    max_count: int | None = None,
    max_side_m: float = np.inf,
) -> list[Tile]:
    """Cut a cloud into tiles with at most ``max_points`` points each, margins included.

    The ground plane is halved at the median of its longer side until each rectangle fits, so tiles are
    nearly square and smaller where points are dense. The margin of a rectangle narrower than two margins
    shrinks, so that very dense clouds can be cut as well. A rectangle longer than ``max_side_m`` with a gap
    over more than half of its length is cut in the gap: far outliers do not cut up the rest.

    Args:
        places: at least one.
        max_points: points of a tile; exceeded only by points exactly above each other.
        margin_m: width of the margin around the core of a tile, metres.
        max_count: weight of a tile at most. None: no limit.
        max_side_m: length of a tile, metres, that the grid of the network can hold.

    Returns:
        At least one tile; every point is in exactly one core.

    Raises:
        ValueError: a limit below 1, a margin below 0, no points.
    """
    _check(len(places), max_points, max_count, margin_m)
    infinity = float("inf")
    pending = [(places, (-infinity, -infinity), (infinity, infinity), float(margin_m))]
    found = []
    while pending:
        # Of the enclosing rectangle, all that this tile can contain.
        here, low, high, margin = pending.pop()
        first, last = here.bounds(low, high)
        sides = (last[0] - first[0], last[1] - first[1])
        axis = int(sides[1] > sides[0])
        margin = min(margin, sides[axis] / 2)
        outer_low, outer_high = _moved(first, -margin), _moved(last, margin)
        here = here.within(outer_low, outer_high)
        fits = len(here) <= max_points and (max_count is None or here.weight() <= max_count)
        fits &= all(outer_high[i] - outer_low[i] <= max_side_m for i in (0, 1))
        if fits or sides[axis] == 0:
            found.append(Tile(low, high, outer_low, outer_high))
            continue
        cut = _cut(here, low, high, axis, in_gap=sides[axis] > max_side_m)
        below, above = list(high), list(low)
        below[axis] = above[axis] = cut
        pending.append((here, (above[0], above[1]), high, margin))
        pending.append((here, low, (below[0], below[1]), margin))
    return found


def _moved(corner: Corner, by: float) -> Corner:
    return corner[0] + by, corner[1] + by


def _check(points: int, max_points: int, max_count: int | None, margin_m: float) -> None:
    if max_points < 1 or (max_count is not None and max_count < 1):
        limits = f"{max_points} and {max_count}"
        raise ValueError(f"tiles: 'max_points' and 'max_count' must be >= 1, got {limits}")
    if not margin_m >= 0:
        raise ValueError(f"tiles: 'margin_m' must be >= 0 metres, got {margin_m}")
    if points == 0:
        raise ValueError("tiles: 'coord' must hold at least one point, got none")


def _cut(places: Places, low: Corner, high: Corner, axis: int, *, in_gap: bool) -> float:
    """Where to cut: at the median, or if wanted in the middle of a gap longer than half of the extent."""
    corners = places.bounds(low, high)
    first, last = corners[0][axis], corners[1][axis]
    if in_gap:  # such a gap holds the middle
        before, beyond = places.around(low, high, axis, (first + last) / 2)
        if beyond - before > (last - first) / 2:
            return before + (beyond - before) / 2
    median = places.middle(low, high, axis)
    if median > first:
        return median
    return places.around(low, high, axis, first)[1]  # half of the points or more are at the minimum
