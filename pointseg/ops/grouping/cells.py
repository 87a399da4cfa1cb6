"""Points sorted into cubic cells, and all points in the 27 cells around others, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pointseg.ops.hardware.pieces import is_cpu, read, values_at_once

_MAX_CELLS = 2**18  # along an axis: 3 * 18 bits of a key, and 9 for the cloud
_PIECE = 2**20  # pairs at once on a CPU: about 40 MB
_LARGEST = 2.0**60  # metres; sums of three squares of what is below fit into float32


@dataclass(frozen=True)
class Boxes:
    """Bounds of the points of each cloud of a batch."""

    low: Tensor
    """(B, 3) the smallest coordinates, metres."""
    high: Tensor
    """(B, 3) the largest coordinates, metres; below ``low`` where a cloud has no points."""
    extent_m: float
    """The longest side of all boxes, metres."""

    @classmethod
    def of(cls, coord: Tensor, ends: Sequence[int], name: str = "") -> Boxes:
        """Bounds of (N, 3) points.

        Args:
            coord: metres.
            ends: cumulative counts of the clouds, as the host knows them.
            name: of the argument that the points were, for the error.

        Raises:
            ValueError: coordinates that are not finite, or so large that their squares are not.
        """
        none = coord.new_full((3,), torch.inf)
        bounds = [
            tuple(coord[start:end].aminmax(dim=0)) if end > start else (none, -none)
            for start, end in zip((0, *ends), ends, strict=False)
        ]
        low, high = (torch.stack(sides) for sides in zip(*bounds, strict=True))
        # without points, the bounds are infinite: they count as 0, as what is not a number must not
        largest = torch.where(low > high, 0, torch.maximum(-low, high)).amax()
        (found,) = read(torch.stack([(high - low).clamp(min=0).amax(), largest]))
        if not (found[0] < _LARGEST and found[1] < _LARGEST):
            raise ValueError(
                f"nearest points: {name and repr(name) + ' '}coordinates must be finite; drop points without one"
            )
        return cls(low, high, found[0])

    def nearest(self, points: Tensor, batch: Tensor) -> Tensor:
        """(n, 3) place in the box of each point's cloud that is nearest to the point."""
        low, high = self.low.index_select(0, batch), self.high.index_select(0, batch)
        return torch.minimum(torch.maximum(points, low), high)


@dataclass(frozen=True)
class Clouds:
    """The points of a batch, with what the host knows of them."""

    coord: Tensor
    """(N, 3) float32 positions, metres."""
    batch: Tensor
    """(N,) int64 cloud of each point."""
    ends: tuple[int, ...]
    """Cumulative counts of the clouds."""
    name: str = ""
    """The argument that they are, for errors."""

    @cached_property
    def boxes(self) -> Boxes:
        """Bounds; read when first asked for."""
        return Boxes.of(self.coord, self.ends, self.name)


@dataclass(frozen=True)
class Around:
    """Pairs of some queries that follow each other and all sources around them."""

    start: int
    """The first query."""
    stop: int
    """The one after the last."""
    of: Tensor
    """(P,) int64 query of each pair, from the first on, ascending."""
    source: Tensor
    """(P,) int64 source of each pair, a position in ``Cells.rows``."""
    ends: Tensor
    """(stop - start,) int64 cumulative counts of the queries' pairs."""


@dataclass(frozen=True)
class Side:
    """How large cells are."""

    reach_m: float
    """Points no further apart than this are in cells that touch."""
    side_m: float
    """Side of a cell, metres."""
    count: int
    """Cells along each axis."""

    @classmethod
    def of(cls, side_m: float, boxes: Boxes) -> Side:
        """Of cells as large as asked for, or the smallest possible."""
        reach_m = max(side_m, boxes.extent_m / _MAX_CELLS, torch.finfo(torch.float32).tiny)
        # Positions are rounded in float32: without this, points at that distance could seem to be two
        # cells apart.
        side_m = reach_m * (1.001 + boxes.extent_m / reach_m * 2.0**-21)
        return cls(reach_m, side_m, int(boxes.extent_m / side_m) + 1)


class Cells:
    """Source points sorted by the cubic cell that they are in, one cloud after another."""

    def __init__(self, coord: Tensor, batch: Tensor, boxes: Boxes, side_m: float) -> None:
        """Sort the points.

        Args:
            coord: (N, 3) metres.
            batch: (N,) int64 cloud of each point.
            boxes: their bounds.
            side_m: of a cell; one below 2^-18 of the clouds' extent is made as large.
        """
        side = Side.of(side_m, boxes)
        self.reach_m = side.reach_m
        """Sources no further than this are in the 27 cells around."""
        self.side_m, self._count, self._boxes = side.side_m, side.count, boxes
        keys = self._keys(self._cells(coord, batch), batch)
        self._sorted_keys, self.rows = torch.sort(keys, stable=True)
        self.coord = coord.index_select(0, self.rows)

    def around(self, query: Tensor, batch: Tensor) -> Iterator[Around]:
        """All sources in the 27 cells around points, in pieces of bounded size.

        A source that is left out is further than ``reach_m`` from the query, or, of a query outside
        its cloud's box, from the point of the box that is nearest to it.

        Args:
            query: (M, 3) metres.
            batch: (M,) int64 cloud of each of them.

        """
        keys, which = self._keys(self._cells(query, batch), batch), None
        if is_cpu(keys):  # most queries share their cell with others: less to search
            keys, which = torch.unique(keys, return_inverse=True)
        first, last = self._runs(keys)  # (U, 9) of each cell that a query is in
        counts = (last - first).clamp_(min=0)
        total = counts.sum(1)  # (M,)
        total = total if which is None else total.index_select(0, which)
        ends = total.cumsum(0)
        for start, stop, done, end in _pieces(ends, values_at_once(ends, _PIECE, width=16)):
            own = slice(start, stop) if which is None else which[start:stop]
            runs, begins = counts[own].flatten(), first[own].flatten()  # (m * 9,)
            pairs = end - done
            of = torch.arange(stop - start, device=query.device)
            of = torch.repeat_interleave(of, total[start:stop], output_size=pairs)
            # Within a run sources follow each other: each run's first, less the pairs before it.
            shift = begins - (runs.cumsum(0) - runs)
            source = torch.repeat_interleave(shift, runs, output_size=pairs)
            source += torch.arange(pairs, device=query.device)
            yield Around(start, stop, of, source, ends[start:stop] - done)

    @property
    def held(self) -> float:
        """Sources in the cell of a source, on average over sources."""
        counts = torch.unique_consecutive(self._sorted_keys, return_counts=True)[1]
        return float(counts.square().sum()) / max(len(self.rows), 1)

    def _cells(self, points: Tensor, batch: Tensor) -> Tensor:
        """(n, 3) int64 cell; of points outside the box, that of the nearest point in it."""
        low = self._boxes.low.index_select(0, batch)
        return (
            ((self._boxes.nearest(points, batch) - low) / self.side_m)
            .long()
            .clamp_(0, self._count - 1)
        )

    def _keys(self, cells: Tensor, batch: Tensor) -> Tensor:
        """(n,) ascending in cloud, x, y, z; one empty cell follows the last along each axis."""
        n = self._count + 1
        return ((batch * n + cells[:, 0]) * n + cells[:, 1]) * n + cells[:, 2]

    def _runs(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """(U, 9) the first source of three cells that follow along z, and the one after the last."""
        n = self._count + 1
        step = torch.arange(-1, 2, device=keys.device)
        middle = keys[:, None] + (step[:, None] * (n * n) + step * n).flatten()  # (U, 9)
        # A step beyond either end lands in an empty cell.
        first = torch.searchsorted(self._sorted_keys, middle - 1)
        last = torch.searchsorted(self._sorted_keys, middle + 1, right=True)
        return first, last


def held_by_halvings(source: Clouds, halvings: int) -> list[float]:
    """``Cells.held`` for cells of the clouds' extent, of half of it, and so on: all at once, for devices."""
    boxes, count = source.boxes, len(source.coord)
    grids = [Side.of(boxes.extent_m / 2**n, boxes) for n in range(halvings + 1)]
    sides = torch.tensor([grid.side_m for grid in grids])
    cells = torch.tensor([grid.count for grid in grids])
    device = source.coord.device
    sides, cells = (t.to(device, non_blocking=True)[:, None] for t in (sides, cells))
    place = (source.coord - boxes.low.index_select(0, source.batch)).T[:, None]  # (3, 1, N)
    x, y, z = torch.minimum((place / sides).long(), cells - 1)
    n = cells + 1
    keys = torch.sort(((source.batch * n + x) * n + y) * n + z).values
    own = torch.searchsorted(keys, keys, right=True) - torch.searchsorted(keys, keys)
    (sums,) = read(own.sum(1))
    return [pairs / max(count, 1) for pairs in sums]


def _pieces(ends: Tensor, limit: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut rows, whose sizes sum up to ``ends``: first row and the one after the last, sizes before and at its end.

    On a CPU pieces have at most ``limit``, or one row; elsewhere one row more, which is known after a wait or two.
    """
    if not len(ends):
        return
    if not is_cpu(ends):
        total = int(ends[-1])
        stops, reached = [len(ends)], [total]
        if total > limit:
            bounds = torch.arange(limit, total, limit, device=ends.device)
            cuts = torch.searchsorted(ends, bounds).add_(1).clamp_(max=len(ends))
            at, sizes = read(cuts, ends.index_select(0, cuts - 1))
            stops, reached = at + stops, sizes + reached
        starts, done = [0, *stops[:-1]], [0, *reached[:-1]]
        yield from (p for p in zip(starts, stops, done, reached, strict=True) if p[1] > p[0])
        return
    start, before = 0, 0
    while start < len(ends):
        bound = ends.new_tensor([before + limit])
        stop = max(int(torch.searchsorted(ends, bound, right=True)), start + 1)
        end = int(ends[stop - 1])
        yield start, stop, before, end
        start, before = stop, end
