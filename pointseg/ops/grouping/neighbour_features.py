"""What is computed over the neighbours of a point: averages by distance, and the maximum of each channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pointseg.ops.hardware.pieces import values_at_once

_PIECE = 2**19
"""Gathered values at once on a CPU: 2 MB in float32, which stay in the cache of a core."""


def interpolate(feat: Tensor, indices: Tensor, distances: Tensor) -> Tensor:
    """Averages of neighbours, weighted by the inverse of their distances.

    Args:
        feat: (N, C) of the sources.
        indices: (M, k) int64 rows of ``feat``, as ``knn`` returns them.
        distances: (M, k) metres; neighbours at inf do not count.

    Returns:
        (M, C). A query on a source takes its features.

    Raises:
        ValueError: shapes that do not fit.

    Source: Qi 2017, arXiv:1706.02413, equation 2, with p = 1 as PointNeXt has it.
    """
    if indices.dim() != 2 or indices.shape != distances.shape or not indices.shape[1]:
        raise ValueError(
            "interpolate: 'indices' and 'distances' must be (M, k) both, got "
            f"{tuple(indices.shape)} and {tuple(distances.shape)}"
        )
    weights = 1 / (distances + 1e-8)
    weights = (weights / weights.sum(1, keepdim=True)).to(feat.dtype)
    # One neighbour after the other: (M, k, C) values are never held, nor saved for the gradient.
    out = feat.index_select(0, indices[:, 0]) * weights[:, :1]
    for j in range(1, indices.shape[1]):
        out = out + feat.index_select(0, indices[:, j]) * weights[:, j : j + 1]
    return out


def neighbour_max(values: Tensor, indices: Tensor) -> Tensor:
    """Maximum over neighbours, channel by channel.

    Memory is linear in (N + M) C: of the (M, k, C) gathered values only a piece is held at once, and
    for the gradient only which neighbour was the maximum (the first of those that reach it). On CUDA
    gradients are summed in any order unless torch uses deterministic algorithms.

    Args:
        values: (N, C) of the sources.
        indices: (M, k) int64 rows of ``values``, k >= 1.

    Returns:
        (M, C).

    Raises:
        ValueError: shapes that do not fit.
    """
    if values.dim() != 2 or indices.dim() != 2 or not indices.shape[1]:
        raise ValueError(
            "neighbour_max: 'values' must be (N, C) and 'indices' (M, k), got "
            f"{tuple(values.shape)} and {tuple(indices.shape)}"
        )
    return _NeighbourMax.apply(values, indices)  # type: ignore[no-any-return]


class _NeighbourMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, indices: Tensor) -> Tensor:
        count, k = indices.shape
        channels = values.shape[1]
        out = values.new_empty(count, channels)
        winners = indices.new_empty(out.shape if ctx.needs_input_grad[0] else 0, dtype=torch.int32)
        piece = max(values_at_once(values, _PIECE) // max(k * channels, 1), 1)
        for start in range(0, count, piece):
            own = indices[start : start + piece]
            near = values.index_select(0, own.flatten()).view(len(own), k, channels)
            part = slice(start, start + len(own))
            if not ctx.needs_input_grad[0]:
                torch.amax(near, 1, out=out[part])
                continue
            out[part], slot = near.max(1)
            winners[part] = own.gather(1, slot).int()
        ctx.save_for_backward(winners)
        ctx.sources = len(values)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (winners,) = ctx.saved_tensors
        found = grad.new_zeros(ctx.sources, grad.shape[1])
        return found.scatter_add_(0, winners.long(), grad), None
