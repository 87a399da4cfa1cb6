"""Layers of sparse convolution, with weights as spconv saves them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pointseg.ops.convolution.grid import Grid
from pointseg.ops.convolution.kernel_map import KernelMap
from pointseg.ops.convolution.sparse_convolution import convolve
from pointseg.ops.hardware.linear import linear
from pointseg.ops.hardware.pieces import is_cpu


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
        if not is_cpu(feat):
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
