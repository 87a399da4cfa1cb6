"""Sparse convolution, inputs and outputs at occupied voxels only: the operator and its gradients.

A kernel map lists the pairs of rows of each offset of the kernel. They are read in one of three ways: on a CPU by
``on_cpu``, on NVIDIA GPUs by the kernels in Triton that ``triton_choice`` allows, elsewhere by ``on_accelerators``.
All of them are deterministic, and the memory beyond input and output does not grow with the cloud.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from pointseg.ops.convolution import on_accelerators, on_cpu, triton_choice
from pointseg.ops.convolution.kernel_map import KernelMap
from pointseg.ops.hardware.pieces import is_cpu


def convolve(
    feat: Tensor,
    weight: Tensor,
    kernel_map: KernelMap,
    order: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Sum, over the kernel's offsets, what each output row reads through them, times its weights.

    Under autocast it computes as matrix products do.

    Args:
        feat: (S, Cin) rows of the map's sources.
        weight: (Cout, ..., Cin), the axes between counting the map's K offsets.
        kernel_map: the pairs of rows.
        order: (S,) int64 which row of ``feat`` each source of a submanifold map is, and which row of the
            result each target; None: they are numbered alike.
        bias: (Cout,) added to every row.

    Returns:
        (T, Cout) rows of the map's targets; 0, or the bias, where nothing is read.

    Raises:
        ValueError: rows, channels or offsets that do not fit.
    """
    if feat.dim() != 2 or len(feat) != kernel_map.sources:
        raise ValueError(
            f"convolve: 'feat' must have the {kernel_map.sources} rows of the grid, got {tuple(feat.shape)}"
        )
    stacked = weight.flatten(1, -2).transpose(0, 1)  # (K, Cout, Cin)
    if stacked.shape[0] != kernel_map.size or stacked.shape[2] != feat.shape[1]:
        raise ValueError(
            f"convolve: 'weight' must be for {kernel_map.size} offsets and {feat.shape[1]} channels, "
            f"got {tuple(weight.shape)}"
        )
    kind = feat.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        if feat.dtype != torch.float64:
            dtype = torch.get_autocast_dtype(kind)
            feat, stacked = feat.to(dtype), stacked.to(dtype)
    return _apply(feat, stacked, bias, kernel_map, order)


# Loops over tiles have the cloud's shapes, kernel maps are made of its numbers, and the kernels are fused as
# they are: a compiled graph would gain nothing from what is in here.
@torch.compiler.disable
def _apply(
    feat: Tensor,
    stacked: Tensor,
    bias: Tensor | None,
    kernel_map: KernelMap,
    order: Tensor | None,
) -> Tensor:
    with _as_given(feat):
        return _Convolution.apply(feat, stacked, bias, kernel_map, order)  # type: ignore[no-any-return]


def _as_given(rows: Tensor) -> AbstractContextManager[object]:
    """No autocast: types have been chosen."""
    kind = rows.device.type
    if torch.amp.is_autocast_available(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


class _Convolution(torch.autograd.Function):
    """Keeps only its inputs for the backward pass, which uses the transposed map."""

    @staticmethod
    def forward(
        ctx: Any,
        feat: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kernel_map: KernelMap,
        order: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(feat, weight)
        ctx.kernel_map, ctx.order = kernel_map, order
        ctx.bias_type = None if bias is None else bias.dtype
        return _unsorted(_multiply_rows(_sorted(feat, order), weight, bias, kernel_map), order)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        feat, weight = ctx.saved_tensors
        kernel_map, order = ctx.kernel_map, ctx.order
        to_feat, to_weight, to_bias, *_ = ctx.needs_input_grad
        grad_bias = grad.sum(0, dtype=ctx.bias_type) if to_bias else None
        grad = _sorted(grad.contiguous(), order)
        grad_feat = grad_weight = None
        with _as_given(feat):
            if to_feat:
                turned = weight.transpose(1, 2)
                grad_feat = _multiply_rows(grad, turned, None, kernel_map.transposed)
                grad_feat = _unsorted(grad_feat, order)
            if to_weight:
                grad_weight = _weight_grad(_sorted(feat, order), grad, kernel_map)
        return grad_feat, grad_weight, grad_bias, None, None


def _multiply_rows(
    rows: Tensor, weight: Tensor, bias: Tensor | None, kernel_map: KernelMap
) -> Tensor:
    """(S, C) with (K, D, C) and (D,) -> (T, D)."""
    if kernels := triton_choice.kernels_for(rows):
        try:
            tiles = kernel_map.masked_tiles(kernels.masked_tiles)
            return kernels.multiply(rows, weight, bias, tiles, kernel_map.targets)  # type: ignore[no-any-return]
        except kernels.FAILURES as error:
            triton_choice.give_up(error)
    way = on_cpu.sum_products if is_cpu(rows) else on_accelerators.sum_products
    out = way(rows, weight, kernel_map)
    return out if bias is None else out.add_(bias)


def _weight_grad(feat: Tensor, grad: Tensor, kernel_map: KernelMap) -> Tensor:
    """(S, C) and (T, D) -> (K, D, C), in memory as the parameter is."""
    if kernels := triton_choice.kernels_for(feat):
        try:
            tiles = kernel_map.masked_tiles(kernels.masked_tiles)
            return kernels.weight_gradient(feat, grad, tiles)  # type: ignore[no-any-return]
        except kernels.FAILURES as error:
            triton_choice.give_up(error)
    way = on_cpu.weight_grad if is_cpu(feat) else on_accelerators.weight_grad
    return way(feat, grad, kernel_map)


def _sorted(rows: Tensor, order: Tensor | None) -> Tensor:
    return rows if order is None else rows.index_select(0, order)


def _unsorted(rows: Tensor, order: Tensor | None) -> Tensor:
    if order is None:
        return rows
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return rows.index_select(0, place)
