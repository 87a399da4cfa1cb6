"""Sparse convolution on a CPU.

The output is computed tile by tile, each thread with its own tiles: per offset the rows are gathered
into a small buffer and multiplied, then each output row sums its products in one pass, so that nothing
is scattered. The weights' gradient is computed offset by offset, each thread with its own.

Rows of few channels, as those a network is given, are read otherwise: the neighbourhoods of a piece of
the cloud are gathered, with zeros where there is no voxel, and multiplied at once. To multiply zeros
costs less than to sort pairs into tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from pointseg.ops.convolution.cpu_tiles import Section, Tile, padded
from pointseg.ops.convolution.kernel_map import KernelMap
from pointseg.ops.hardware.blas import fills_vectors
from pointseg.ops.hardware.linear import IMAGES, as_images
from pointseg.ops.hardware.threads import count_threads, for_each

NARROW = 16
"""Rows of so many channels or fewer are read as whole neighbourhoods."""
_PIECE = 2**18
"""Numbers of neighbourhoods that a thread gathers at a time: they stay in its cache."""
_ROWS = 8192
"""Rows whose share of the weights' gradient is computed at a time."""
_WORTH = 2**21
"""Smaller products (rows by channels by channels) are left to ``mm``, which starts faster."""


def sum_products(rows: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """(S, C) rows with (K, D, C) weights -> (T, D)."""
    if rows.shape[1] <= NARROW:
        return _sum_neighbourhoods(rows, weight, kernel_map)
    return _sum_tiles(rows, weight, kernel_map)


def weight_grad(feat: Tensor, grad: Tensor, kernel_map: KernelMap) -> Tensor:
    """(S, C) rows and the (T, D) gradient of the output -> (K, D, C), in memory as the parameter is."""
    if feat.shape[1] <= NARROW:
        return _neighbourhoods_weight_grad(feat, grad, kernel_map)
    return _tiles_weight_grad(feat, grad, kernel_map)


def _sum_neighbourhoods(rows: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """As ``sum_products``; each thread takes every other piece of the targets."""
    size, out_width, width = weight.shape
    matrix = weight.transpose(0, 1).flatten(1).T  # (K C, D)
    table, threads = kernel_map.table, count_threads()
    extended = torch.cat([rows, rows.new_zeros(1, width)])
    out = rows.new_empty(len(table), out_width)
    step = min(max(1, _PIECE // (size * width)), max(1, len(table)))
    reads = rows.new_empty(threads, step * size, width).unbind()

    def go(first: int) -> None:
        for start in range(first * step, len(table), threads * step):
            part = table[start : start + step].flatten()
            read = reads[first][: len(part)]
            torch.index_select(extended, 0, part, out=read)
            torch.mm(read.view(-1, size * width), matrix, out=out[start : start + step])

    for_each(go, range(threads))
    return out


def _neighbourhoods_weight_grad(feat: Tensor, grad: Tensor, kernel_map: KernelMap) -> Tensor:
    """As ``weight_grad``; each thread takes some of the offsets."""
    size, width = kernel_map.size, feat.shape[1]
    table, threads = kernel_map.table, count_threads()
    extended = torch.cat([feat, feat.new_zeros(1, width)])
    wide = torch.promote_types(feat.dtype, torch.float32)
    sums = feat.new_zeros(grad.shape[1], size * width, dtype=wide)
    step = min(max(1, _PIECE // (size * width)), max(1, len(table)))
    each = -(-size // threads)
    reads = feat.new_empty(threads, step * each, width).unbind()

    def go(first: int) -> None:
        offsets = slice(first * each, min((first + 1) * each, size))
        some = sums[:, offsets.start * width : offsets.stop * width]
        for start in range(0, len(table), step):
            part = table[start : start + step, offsets].flatten()
            read = reads[first][: len(part)]
            torch.index_select(extended, 0, part, out=read)
            grads = grad[start : start + step]
            _correlate(grads, read.view(len(grads), some.shape[1]), some, add=True)

    for_each(go, range(min(threads, -(-size // each))))
    return sums.view(-1, size, width).to(feat.dtype).transpose(0, 1)


def _sum_tiles(rows: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """As ``sum_products``; each thread takes whole tiles, or sections of the only one."""
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
    """As ``weight_grad``; each thread takes whole offsets."""
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

    Large float32 products go through oneDNN where BLAS is slow, see ``ops.hardware.linear``.
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
        and not fills_vectors()
        and torch.backends.mkldnn.is_available()
    )
