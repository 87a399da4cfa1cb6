"""Pooling of points into cells and unpooling: reductions over segments, and cells along a curve.

Values are gathered in the order of their segments and reduced run by run; gradients are gathered
too. Nothing is scattered, so CPU and CUDA give the same sums each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Reduction = Literal["max", "mean", "sum"]


@dataclass(frozen=True)
class Segments:
    """Which of M segments each of N rows belongs to, and the rows sorted by it."""

    index: Tensor
    """(N,) int64 segment of each row."""
    order: Tensor
    """(N,) int64 rows, those of segment 0 first."""
    starts: Tensor
    """(M + 1,) int64: ``order[starts[m]:starts[m + 1]]`` are the rows of segment m."""

    @classmethod
    def of(cls, index: Tensor, count: int) -> Segments:
        """Sort rows by segment; within one they stay in order.

        Args:
            index: (N,) int64 segment of each row, in 0 to count - 1.
            count: number of segments M.

        Raises:
            ValueError: a segment out of range.
        """
        if index.dim() != 1 or index.dtype != torch.int64:
            raise ValueError(
                f"Segments: 'index' must be (N,) int64, got {tuple(index.shape)} {index.dtype}"
            )
        low, high = (int(bound) for bound in index.aminmax()) if len(index) else (0, -1)
        if low < 0 or high >= count:
            raise ValueError(f"Segments: 'index' must be in 0 to {count - 1}, got {low} to {high}")
        starts = index.new_zeros(count + 1)
        torch.cumsum(torch.bincount(index, minlength=count), 0, out=starts[1:])
        return cls(index, torch.sort(index, stable=True).indices, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def counts(self) -> Tensor:
        """(M,) int64 rows of each segment."""
        return self.starts.diff()

    def reduce(self, values: Tensor, reduction: Reduction) -> Tensor:
        """Reduce the rows of each segment to one.

        Args:
            values: (N, C) floating point.
            reduction: "max", "mean" or "sum". Sums are taken in float32 at least. The gradient of a
                maximum is shared evenly among the rows that reach it.

        Returns:
            (M, C) in the type of ``values``; 0 for segments without rows.

        Raises:
            ValueError: an unknown reduction, or another number of rows.
        """
        if reduction not in get_args(Reduction):
            raise ValueError(
                f"Segments.reduce: 'reduction' must be max, mean or sum, got {reduction!r}"
            )
        if values.dim() != 2 or len(values) != len(self.index):
            raise ValueError(
                f"Segments.reduce: 'values' must be ({len(self.index)}, C), got {tuple(values.shape)}"
            )
        return _Reduce.apply(values, self, reduction)  # type: ignore[no-any-return]

    def spread(self, values: Tensor) -> Tensor:
        """Give each row what its segment has.

        Args:
            values: (M, C).

        Returns:
            (N, C); its gradient is summed over each segment.
        """
        return _Spread.apply(values, self)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class CellPooling:
    """Voxels pooled into cells, which are numbered along one of the curves."""

    segments: Segments
    """The cell of each voxel."""
    heads: Tensor
    """(M,) one voxel of each cell."""
    codes: tuple[Tensor, ...]
    """The codes of the cells along each curve, (M,) int64."""
    orders: tuple[Tensor, ...]
    """Cells sorted along each curve, (M,) int64."""


def pool_cells(
    codes: Sequence[Tensor], orders: Sequence[Tensor], *, halvings: int = 1, first: int = 0
) -> CellPooling:
    """Pool voxels that share a cell of 2^halvings voxels along each axis, in linear time.

    A cell is a run of voxels along every curve, so the cells need no sorting of their own.

    Args:
        codes: along each curve, (N,) int64 each, all different, see ``space_filling_curves.encode``.
        orders: voxels sorted along each curve, (N,) int64 each.
        halvings: of the cube that are dropped; 0 keeps the voxels and numbers them along the curve.
        first: along which curve the cells are numbered.

    Returns:
        The cells.

    Source: Point Transformer V3, arXiv:2312.10035, section 4.3 (grid pooling).
    """
    shift = 3 * halvings
    segments, heads = _group(codes[first] >> shift, orders[first])
    return CellPooling(
        segments,
        heads,
        tuple(code[heads] >> shift for code in codes),
        tuple(_runs(segments.index[order]) for order in orders),
    )


def pool_grid(grid_coord: Tensor, batch: Tensor, stride: int) -> tuple[Segments, Tensor]:
    """Pool voxels that share a cell of ``stride`` voxels along each axis.

    Args:
        grid_coord: (N, 3) int64 voxels, >= 0.
        batch: (N,) int64 cloud of each.
        stride: voxels per cell along each axis, >= 1.

    Returns:
        The cell of each voxel, cells being numbered by cloud, x, y, z; (M,) one voxel of each cell.

    Source: the poolings of Sonata (Wu 2025, arXiv:2503.16429), which follow no curve.
    """
    cells = torch.div(grid_coord, stride, rounding_mode="trunc")
    keys = batch
    for axis in cells.unbind(1):
        keys = keys * (axis.max() + 1 if len(axis) else 1) + axis
    return _group(keys, torch.argsort(keys, stable=True))


def _group(keys: Tensor, order: Tensor) -> tuple[Segments, Tensor]:
    """A segment for each of (N,) keys, ascending, and (M,) its first row; ``order`` sorts the keys."""
    ascending = keys[order]
    begins = torch.ones_like(ascending, dtype=torch.bool)
    torch.ne(ascending[1:], ascending[:-1], out=begins[1:])
    index = torch.empty_like(order)
    index[order] = begins.cumsum(0) - 1
    starts = begins.nonzero()[:, 0]
    end = torch.full_like(starts[:1], len(order))
    return Segments(index, order, torch.cat([starts, end])), order[starts]


def _runs(values: Tensor) -> Tensor:
    """Each value once where it is repeated."""
    return values[torch.cat([torch.ones_like(values[:1], dtype=torch.bool), values.diff() != 0])]


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, segments: Segments, reduction: Reduction) -> Tensor:
        ctx.segments, ctx.reduction = segments, reduction
        out = _reduce(values, segments, reduction)
        if reduction == "max":
            ctx.save_for_backward(values, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        segments: Segments = ctx.segments
        if ctx.reduction == "mean":
            grad = grad / segments.counts.clamp(min=1)[:, None].to(grad.dtype)
        if ctx.reduction != "max":
            return grad.index_select(0, segments.index), None, None
        values, out = ctx.saved_tensors
        reaching = (values == out.index_select(0, segments.index)).to(grad.dtype)
        shares = grad / _reduce(reaching, segments, "sum").clamp(min=1)
        return reaching.mul_(shares.index_select(0, segments.index)), None, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, segments: Segments) -> Tensor:
        ctx.segments = segments
        return values.index_select(0, segments.index)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _reduce(grad, ctx.segments, "sum"), None


def _reduce(values: Tensor, segments: Segments, reduction: Reduction) -> Tensor:
    wide = (
        values
        if reduction == "max"
        else values.to(torch.promote_types(values.dtype, torch.float32))
    )
    if values.device.type in ("cpu", "cuda"):
        out = torch.segment_reduce(
            wide.index_select(0, segments.order),
            reduction,
            offsets=segments.starts,
            axis=0,
            unsafe=True,
        )
        # segments without rows come out as -inf (max) or NaN (mean)
        out.masked_fill_((segments.counts == 0)[:, None], 0)
    else:
        out = wide.new_zeros(len(segments), values.shape[1])
        rows = segments.index[:, None].expand_as(wide)
        kind = {"max": "amax"}.get(reduction, reduction)
        out.scatter_reduce_(0, rows, wide, kind, include_self=False)
    return out.to(values.dtype)
