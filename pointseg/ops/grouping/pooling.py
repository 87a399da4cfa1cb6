"""Pooling of voxels into larger cells, along curves or on the grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pointseg.ops.grouping.runs import ends_of_runs, numbers_of_runs, starts_of_runs
from pointseg.ops.grouping.segments import Segments


@dataclass(frozen=True)
class PooledCells:
    """Voxels pooled into M cells, those of a cloud after those of the one before."""

    segments: Segments
    """The cell of each voxel."""
    heads: Tensor
    """(M,) one voxel of each cell."""
    offset: Tensor
    """(B,) int64 cumulative counts of cells."""
    counts: tuple[int, ...]
    """Cells of each cloud: the only numbers that the host reads."""


@dataclass(frozen=True)
class CurveCells(PooledCells):
    """Cells that are numbered along one of the curves."""

    codes: Tensor
    """(O, M) int64 codes of the cells along each curve."""
    orders: Tensor
    """(O, M) int64 cells sorted along each curve."""


def pool_cells(
    codes: Tensor, orders: Tensor, offset: Tensor, *, halvings: int = 1, first: int = 0
) -> CurveCells:
    """Pool voxels that share a cell of 2^halvings voxels along each axis, in linear time.

    A cell is a run of voxels along every curve, so the cells need no sorting of their own.

    Args:
        codes: (O, N) int64 along each curve, all different, see ``space_filling_curves.encode``.
        orders: (O, N) int64 voxels sorted along each curve.
        offset: (B,) int64 cumulative counts of voxels.
        halvings: of the cube that are dropped; 0 keeps the voxels and numbers them along the curve.
        first: along which curve the cells are numbered.

    Returns:
        The cells.

    Source: Point Transformer V3, arXiv:2312.10035, section 4.3 (grid pooling).
    """
    shift = 3 * halvings
    cells = _group(codes[first] >> shift, orders[first], offset)
    return CurveCells(
        cells.segments,
        cells.heads,
        cells.offset,
        cells.counts,
        codes.index_select(1, cells.heads) >> shift,
        _runs(cells.segments.index[orders], len(cells.heads)),
    )


def pool_grid(grid_coord: Tensor, batch: Tensor, offset: Tensor, stride: int) -> PooledCells:
    """Pool voxels that share a cell of ``stride`` voxels along each axis.

    Args:
        grid_coord: (N, 3) int64 voxels, >= 0.
        batch: (N,) int64 cloud of each.
        offset: (B,) int64 cumulative counts of voxels.
        stride: voxels per cell along each axis, >= 1.

    Returns:
        The cells, numbered by cloud, x, y, z.

    Source: the poolings of Sonata (Wu 2025, arXiv:2503.16429), which follow no curve.
    """
    cells = torch.div(grid_coord, stride, rounding_mode="trunc")
    keys = batch
    for axis in cells.unbind(1):
        keys = keys * (axis.max() + 1 if len(axis) else 1) + axis
    return _group(keys, torch.argsort(keys, stable=True), offset)


def _group(keys: Tensor, order: Tensor, offset: Tensor) -> PooledCells:
    """A cell for each of (N,) keys, ascending; ``order`` sorts the keys, cloud after cloud."""
    numbers = numbers_of_runs(keys[order])
    index = torch.empty_like(order)
    index[order] = numbers
    ends = ends_of_runs(numbers, offset)
    read = ends.tolist()
    starts = starts_of_runs(numbers, read[-1])
    heads = order.index_select(0, starts[:-1])
    counts = tuple(end - begin for begin, end in zip((0, *read), read, strict=False))
    return PooledCells(Segments(index, order, starts), heads, ends, counts)


def _runs(values: Tensor, count: int) -> Tensor:
    """(O, N) -> (O, count): each value once where it is repeated."""
    return values.gather(1, starts_of_runs(numbers_of_runs(values), count)[:, :-1])
