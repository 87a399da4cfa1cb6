"""Sparse convolution in plain torch: inputs and outputs at occupied voxels only.

A kernel map lists the pairs of rows of each offset of the kernel. On a CPU the output is computed
tile by tile, each thread with its own tiles: per offset the rows are gathered into a small
buffer and multiplied, then each output row sums its products in one pass, so that nothing is
scattered. The weights' gradient is computed offset by offset, each thread with its own. Elsewhere the
neighbourhoods of a block of rows are gathered and multiplied at once. All of this is deterministic,
and the memory beyond input and output does not grow with the cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from pointseg.ops.grid import Grid
from pointseg.ops.kernel_map import KernelMap, Section, Tile, padded
from pointseg.ops.linear import IMAGES, as_images, linear
from pointseg.ops.pieces import is_cpu
from pointseg.ops.threads import count_threads, for_each

_BLOCK = 2**25
"""Gathered numbers at a time on devices other than CPUs."""
_ROWS = 8192
"""Rows whose share of the weights' gradient is computed at a time on a CPU."""
_WORTH = 2**21
"""Smaller products (rows by channels by channels) are left to ``mm``, which starts faster."""


def convolve(feat: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """Sum, over the kernel's offsets, what each output row reads through them, times its weights.

    Under autocast it computes as matrix products do.

    Args:
        feat: (S, Cin) rows of the map's sources.
        weight: (Cout, ..., Cin), the axes between counting the map's K offsets.
        kernel_map: the pairs of rows.

    Returns:
        (T, Cout) rows of the map's targets; 0 where nothing is read.

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
    return _apply(feat, stacked, kernel_map)


@torch.compiler.disable  # loops over tiles, whose shapes are the cloud's
def _apply(feat: Tensor, stacked: Tensor, kernel_map: KernelMap) -> Tensor:
    with _as_given(feat):
        return _Convolution.apply(feat, stacked, kernel_map)  # type: ignore[no-any-return]


def _as_given(rows: Tensor) -> AbstractContextManager[object]:
    """No autocast: types have been chosen."""
    kind = rows.device.type
    if torch.amp.is_autocast_available(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


class _Convolution(torch.autograd.Function):
    """Keeps only its inputs for the backward pass, which uses the transposed map."""

    @staticmethod
    def forward(ctx: Any, feat: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(feat, weight)
        ctx.kernel_map = kernel_map
        if _tiled(feat):
            return _sum_tiles(feat, weight, kernel_map)
        return _gather_table(feat, weight.transpose(1, 2), kernel_map)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        feat, weight = ctx.saved_tensors
        kernel_map: KernelMap = ctx.kernel_map
        to_feat, to_weight, _ = ctx.needs_input_grad
        grad = grad.contiguous()
        with _as_given(feat):
            if _tiled(feat):
                turned = weight.transpose(1, 2)
                grad_feat = _sum_tiles(grad, turned, kernel_map.transposed) if to_feat else None
                grad_weight = _tiles_weight_grad(feat, grad, kernel_map) if to_weight else None
                return grad_feat, grad_weight, None
            grad_feat = _gather_table(grad, weight, kernel_map.transposed) if to_feat else None
            grad_weight = _table_weight_grad(feat, grad, kernel_map) if to_weight else None
            return grad_feat, grad_weight, None


def _tiled(rows: Tensor) -> bool:
    return is_cpu(rows)


def _sum_tiles(rows: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """(S, C) with (K, D, C) -> (T, D); each thread takes whole tiles, or sections of the only one."""
    tiles, threads = kernel_map.tiles, count_threads()
    if len(tiles) > 1:  # every tile reads all matrices
        weight = weight.contiguous()
    matrices = weight.unbind()
    out = rows.new_empty(kernel_map.targets, weight.shape[1])
    # Buffers are made here and not in the threads, where memory would stay with each of them.
    width = max((s.rows for tile in tiles for s in tile.sections), default=0)
    reads = rows.new_empty(threads, width, rows.shape[1]).unbind()
    shape = (min(threads, len(tiles)), max((t.rows for t in tiles), default=0), weight.shape[1])
    wide = torch.promote_types(rows.dtype, torch.float32)  # of what is summed
    products = rows.new_empty(shape, dtype=wide).unbind()

    def multiply(sections: Sequence[Section], read: Tensor, products: Tensor) -> None:
        for s in sections:
            torch.index_select(rows, 0, s.source, out=read[: len(s.source)])
            _multiply(read[: s.rows], matrices[s.offset], products[s.row : s.row + s.rows])

    def add(tile: Tile, products: Tensor) -> None:
        out[tile.first : tile.last] = F.embedding_bag(
            tile.bag, products, tile.bag_starts, mode="sum", include_last_offset=True
        )

    def go(first: int) -> None:
        for tile in tiles[first::threads]:
            multiply(tile.sections, reads[first], products[first])
            add(tile, products[first])

    if len(tiles) == 1:
        sections = tiles[0].sections
        for_each(lambda n: multiply(sections[n::threads], reads[n], products[0]), range(threads))
        add(tiles[0], products[0])
    else:
        for_each(go, range(len(products)))
    return out


def _tiles_weight_grad(feat: Tensor, grad: Tensor, kernel_map: KernelMap) -> Tensor:
    """(S, C) and (T, D) -> (K, D, C), in memory as the parameter is; each thread takes whole offsets."""
    threads, pairs = count_threads(), kernel_map.pairs()
    # those of most pairs first, so that each thread has about as much to do
    offsets = sorted(range(len(pairs)), key=lambda offset: -len(pairs[offset][0]))
    width = padded(min(_ROWS, len(pairs[offsets[0]][0])))
    reads = feat.new_empty(threads, width, feat.shape[1]).unbind()
    others = grad.new_empty(threads, width, grad.shape[1]).unbind()
    wide = torch.promote_types(feat.dtype, torch.float32)
    sums = feat.new_empty(grad.shape[1], len(pairs), feat.shape[1], dtype=wide)

    def go(first: int) -> None:
        for offset in offsets[first::threads]:
            source, target = (rows.split(_ROWS) for rows in pairs[offset])
            for number, (at_feat, at_grad) in enumerate(zip(source, target, strict=True)):
                count, rows = len(at_feat), padded(len(at_feat))
                read, met = reads[first][:rows], others[first][:rows]
                torch.index_select(feat, 0, at_feat, out=read[:count])
                torch.index_select(grad, 0, at_grad, out=met[:count])
                if count < rows:  # padding must not count, nor meet what memory held before
                    read[count:].zero_()
                    met[count:].zero_()
                _correlate(met, read, sums[:, offset], add=number > 0)

    for_each(go, range(threads))
    return sums.to(feat.dtype).transpose(0, 1)


def _multiply(rows: Tensor, weight: Tensor, out: Tensor) -> None:
    """Write rows @ weight.T, (R, C) with (D, C), to ``out``.

    Large float32 products go through oneDNN, see ``ops.linear``.
    """
    if _by_convolution(rows, len(weight)):
        product = torch.conv2d(as_images(rows), weight[:, :, None, None])
        as_images(out).copy_(product)
    elif out.dtype == rows.dtype:
        torch.mm(rows, weight.T, out=out)
    else:
        out.copy_(rows @ weight.T)


def _correlate(rows: Tensor, others: Tensor, out: Tensor, *, add: bool) -> None:
    """Write rows.T @ others, (R, C) with (R, E), to ``out``, or add it.

    As ``_multiply``: it is the gradient of the weights of such a convolution.
    """
    if _by_convolution(rows, others.shape[1]):
        shape = (rows.shape[1], others.shape[1], 1, 1)
        product = conv2d_weight(as_images(others), shape, as_images(rows))[:, :, 0, 0]
    elif out.dtype == rows.dtype:
        torch.addmm(out, rows.T, others, beta=int(add), out=out)
        return
    else:
        product = rows.T @ others
    if add:
        out += product
    else:
        out.copy_(product)


def _by_convolution(rows: Tensor, width: int) -> bool:
    return (
        rows.dtype == torch.float32
        and rows.numel() * width >= _WORTH
        and len(rows) % IMAGES == 0
        and torch.backends.mkldnn.is_available()
    )


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

    def _along(self, feat: Tensor, kernel_map: KernelMap) -> Tensor:
        out = convolve(feat, self.weight, kernel_map)
        return out if self.bias is None else out + self.bias.to(out.dtype)


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
        return self._along(feat, grid.kernel_map(self.kernel_size))


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
