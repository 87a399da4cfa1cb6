"""Segments of rows: their reduction to one row each, and the way back.

Values are gathered in the order of their segments and reduced run by run; gradients are gathered
too. Nothing is scattered, so CPU and CUDA give the same sums each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pointseg.ops.hardware.pieces import is_cpu

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
        low, high = torch.stack(index.aminmax()).tolist() if len(index) else (0, -1)
        if low < 0 or high >= count:
            raise ValueError(f"Segments: 'index' must be in 0 to {count - 1}, got {low} to {high}")
        return cls.known(index, count)

    @classmethod
    def known(cls, index: Tensor, count: int) -> Segments:
        """As ``of``, for rows that are known to be in range: the host waits for nothing."""
        if is_cpu(index):
            starts = index.new_zeros(count + 1)
            torch.cumsum(torch.bincount(index, minlength=count), 0, out=starts[1:])
            return cls(index, torch.sort(index, stable=True).indices, starts)
        ascending, order = torch.sort(index, stable=True)
        starts = torch.searchsorted(ascending, torch.arange(count + 1, device=index.device))
        return cls(index, order, starts)

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
