"""Sparse convolution in plain torch: inputs and outputs at occupied voxels only.

A kernel map lists the pairs of rows of each offset of the kernel. How they are read on a CPU is described in
``convolution_on_cpu``. On NVIDIA GPUs kernels in Triton gather rows while they multiply, see
``kernel_choice``. Elsewhere the neighbourhoods of a block of rows are gathered and multiplied at once.
All of this is deterministic, and the memory beyond input and output does not grow with the cloud.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from pointseg.ops import kernel_choice
from pointseg.ops.convolution_on_cpu import sum_products, weight_grad
from pointseg.ops.grid import Grid
from pointseg.ops.kernel_map import KernelMap
from pointseg.ops.linear import linear
from pointseg.ops.pieces import is_cpu

_BLOCK = 2**25
"""Gathered numbers at a time on devices other than CPUs."""


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
    if kernels := kernel_choice.kernels_for(rows):
        try:
            tiles = kernel_map.masked_tiles(kernels.masked_tiles)
            return kernels.multiply(rows, weight, bias, tiles, kernel_map.targets)  # type: ignore[no-any-return]
        except kernels.FAILURES as error:
            kernel_choice.give_up(error)
    if _tiled(rows):
        out = sum_products(rows, weight, kernel_map)
    else:
        out = _gather_table(rows, weight.transpose(1, 2), kernel_map)
    return out if bias is None else out.add_(bias)


def _weight_grad(feat: Tensor, grad: Tensor, kernel_map: KernelMap) -> Tensor:
    """(S, C) and (T, D) -> (K, D, C), in memory as the parameter is."""
    if kernels := kernel_choice.kernels_for(feat):
        try:
            tiles = kernel_map.masked_tiles(kernels.masked_tiles)
            return kernels.weight_gradient(feat, grad, tiles)  # type: ignore[no-any-return]
        except kernels.FAILURES as error:
            kernel_choice.give_up(error)
    if _tiled(feat):
        return weight_grad(feat, grad, kernel_map)
    return _table_weight_grad(feat, grad, kernel_map)


def _sorted(rows: Tensor, order: Tensor | None) -> Tensor:
    return rows if order is None else rows.index_select(0, order)


def _unsorted(rows: Tensor, order: Tensor | None) -> Tensor:
    if order is None:
        return rows
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return rows.index_select(0, place)


def _tiled(rows: Tensor) -> bool:
    return is_cpu(rows)


def _gather_table(rows: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """(S, C) with (K, C, D) -> (T, D): neighbourhoods side by side, one product per block."""
    size, width, out_width = weight.shape
    table = kernel_map.table
    padded = torch.cat([rows, rows.new_zeros(1, width)])
    flat = weight.reshape(size * width, out_width)
    step = max(1, _BLOCK // (size * width))
    blocks = [
        padded.index_select(0, part.flatten()).view(len(part), size * width) @ flat
        for part in table.split(step)
    ]
    if len(blocks) == 1:
        return blocks[0]
    return torch.cat(blocks) if blocks else rows.new_empty(0, out_width)


def _table_weight_grad(feat: Tensor, grad: Tensor, kernel_map: KernelMap) -> Tensor:
    """(S, C) and (T, D) -> (K, D, C), summed in float32 over blocks."""
    size, width = kernel_map.size, feat.shape[1]
    padded = torch.cat([feat, feat.new_zeros(1, width)])
    wide = torch.promote_types(feat.dtype, torch.float32)
    sums = feat.new_zeros(grad.shape[1], size * width, dtype=wide)
    step = max(1, _BLOCK // (size * width))
    for part, grads in zip(kernel_map.table.split(step), grad.split(step), strict=True):
        sums += grads.T @ padded.index_select(0, part.flatten()).view(len(part), size * width)
    return sums.view(grad.shape[1], size, width).transpose(0, 1).to(feat.dtype)


class _SparseConv3d(nn.Module):
    """Weights in the layout that spconv saves, (out, x, y, z, in), and an optional bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.weight = nn.Parameter(torch.empty(out_channels, *(kernel_size,) * 3, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As torch's convolutions begin: uniform, by the number of values that are summed."""
        bound = (self.in_channels * self.kernel_size**3) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}{bias}"

    def _along(self, feat: Tensor, kernel_map: KernelMap, order: Tensor | None = None) -> Tensor:
        return convolve(feat, self.weight, kernel_map, order, self.bias)


class SubmanifoldConv3d(_SparseConv3d):
    """Convolution whose outputs are at the voxels of its inputs: (N, Cin) -> (N, Cout).

    Source: Graham 2018, arXiv:1711.10275, section 3. As in spconv, the weights of a kernel of one
    voxel, though of shape (out, 1, 1, 1, in), are an (in, out) matrix in memory.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, bias: bool = True
    ) -> None:
        """Begin with random weights.

        Args:
            in_channels: Cin.
            out_channels: Cout.
            kernel_size: voxels along each axis, odd.
            bias: whether one is added.

        Raises:
            ValueError: an even or negative kernel size.
        """
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"SubmanifoldConv3d: 'kernel_size' must be odd and positive, got {kernel_size}"
            )
        super().__init__(in_channels, out_channels, kernel_size, bias)

    def forward(self, feat: Tensor, grid: Grid) -> Tensor:
        """(N, Cin) rows of the grid's voxels -> (N, Cout)."""
        if self.kernel_size == 1:
            # spconv multiplies by the same numbers read in the order (in, out), whatever shape it
            # saves them in, and published weights were trained so
            matrix = self.weight.reshape(self.in_channels, self.out_channels)
            return linear(feat, matrix.T, self.bias)
        if not _tiled(feat):
            return self._along(feat, grid.kernel_map(self.kernel_size))
        # Where rows are in no order, most reads of neighbours wait for memory: sorting them is cheaper.
        ordered, order = grid.sorted()
        kernel_map = ordered.kernel_map(self.kernel_size)
        return self._along(feat, kernel_map, None if ordered is grid else order)


class StridedConv3d(_SparseConv3d):
    """Convolution with kernel 2 and stride 2: (N, Cin) at voxels -> (M, Cout) at cells of 2^3 voxels."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 2, bias)

    def forward(self, feat: Tensor, grid: Grid) -> Tensor:
        """Rows of the grid's voxels -> rows of ``grid.coarser()``."""
        return self._along(feat, grid.coarser(2)[1])


class InverseConv3d(_SparseConv3d):
    """The way back of a StridedConv3d: (M, Cin) at cells -> (N, Cout) at their voxels.

    Each voxel reads its cell through the weights of its place in it.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 2, bias)

    def forward(self, feat: Tensor, grid: Grid) -> Tensor:
        """Rows of ``grid.coarser()`` -> rows of the grid's voxels; ``grid`` is the finer one."""
        return self._along(feat, grid.coarser(2)[1].transposed)
