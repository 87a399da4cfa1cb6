"""Points sorted into cubic cells, and all points in the 27 cells around others, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_MAX_CELLS = 2**18  # along an axis: 3 * 18 bits of a key, and 9 for the cloud
_PIECE = 2**20  # pairs at once: about 40 MB


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
    def of(cls, coord: Tensor, offset: Tensor) -> Boxes:
        """Bounds of (N, 3) points.

        Raises:
            ValueError: coordinates that are not finite.
        """
        low = coord.new_full((len(offset), 3), torch.inf)
        high = -low
        start = 0
        for number, end in enumerate(offset.tolist()):
            if end > start:
                low[number], high[number] = coord[start:end].aminmax(dim=0)
            start = end
        extent = float((high - low).clamp(min=0).max())
        if not extent < torch.inf:
            raise ValueError("nearest points: coordinates must be finite; drop points without one")
        return cls(low, high, extent)

    def nearest(self, points: Tensor, batch: Tensor) -> Tensor:
        """(n, 3) place in the box of each point's cloud that is nearest to the point."""
        low, high = self.low.index_select(0, batch), self.high.index_select(0, batch)
        return torch.minimum(torch.maximum(points, low), high)


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
        self.reach_m = max(side_m, boxes.extent_m / _MAX_CELLS, torch.finfo(torch.float32).tiny)
        """Sources no further than this are in the 27 cells around."""
        # Positions are rounded in float32: without this, points at that distance could seem to be two
        # cells apart.
        self.side_m = self.reach_m * (1.001 + boxes.extent_m / self.reach_m * 2.0**-21)
        self._boxes = boxes
        self._count = int(boxes.extent_m / self.side_m) + 1  # along each axis
        keys = self._keys(self._cells(coord, batch), batch)
        self._sorted_keys, self.rows = torch.sort(keys, stable=True)
        self.coord = coord.index_select(0, self.rows)

    def around(self, query: Tensor, batch: Tensor) -> Iterator[tuple[int, int, Tensor, Tensor]]:
        """All sources in the 27 cells around points, in pieces of bounded size.

        A source that is left out is further than ``reach_m`` from the query, or, of a query outside
        its cloud's box, from the point of the box that is nearest to it.

        Args:
            query: (M, 3) metres.
            batch: (M,) int64 cloud of each of them.

        Yields:
            First query and the one after the last; (P,) int64 query of each pair, from the first
            on, ascending; (P,) int64 source, a position in ``rows``.
        """
        cells = self._cells(query, batch)
        keys, which = torch.unique(self._keys(cells, batch), return_inverse=True)
        first, last = self._runs(keys)  # (U, 9) of each cell that a query is in
        counts = (last - first).clamp_(min=0)
        total = counts.sum(1).index_select(0, which)  # (M,)
        ends = total.cumsum(0)
        for start, stop in _pieces(ends, _PIECE):
            own = which[start:stop]
            runs = counts.index_select(0, own).flatten()  # (m * 9,)
            pairs = int(ends[stop - 1]) - (int(ends[start - 1]) if start else 0)
            of = torch.arange(stop - start, device=query.device)
            of = torch.repeat_interleave(of, total[start:stop], output_size=pairs)
            # Within a run sources follow each other: each run's first, less the pairs before it.
            shift = first.index_select(0, own).flatten() - (runs.cumsum(0) - runs)
            source = torch.repeat_interleave(shift, runs, output_size=pairs)
            source += torch.arange(pairs, device=query.device)
            yield start, stop, of, source

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


def _pieces(ends: Tensor, limit: int) -> Iterator[tuple[int, int]]:
    """Cut rows, whose sizes sum up to ``ends``, into pieces of at most ``limit``, or of one row."""
    start, done = 0, 0
    while start < len(ends):
        bound = ends.new_tensor([done + limit])
        stop = max(int(torch.searchsorted(ends, bound, right=True)), start + 1)
        yield start, stop
        start, done = stop, int(ends[stop - 1])
