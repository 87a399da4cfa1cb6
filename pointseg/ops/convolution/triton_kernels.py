"""Kernels of sparse convolution in Triton: rows are gathered while they are multiplied.

Nothing that grows with the kernel's offsets is written to memory (implicit GEMM). A tile of targets
goes only through the offsets that one of its rows needs (see ``masked_tiles``). No two programs write the
same number, and the order of every sum is fixed by the shapes, so that results are the same in every run.

Import this file late: Triton is not everywhere. It uses Triton's built-in functions only, none that are
compiled themselves, so that the kernels can also be imported for Triton's interpreter.
"""

from __future__ import annotations

import triton
import triton.language as tl

_add = tl.standard._sum_combine
"""What ``tl.sum`` reduces with, which the interpreter knows how to do fast."""


@triton.jit(do_not_specialize=["targets"])
def mask_rows(
    neighbours,
    rank,
    keys,
    targets,
    SIZE: tl.constexpr,
    GROUP: tl.constexpr,
    BITS: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """(T, SIZE) -> (WORDS, T) int64 numbers to sort rows by, see ``masked_tiles``; (SIZE,) rank of each offset."""
    word = tl.program_id(1)
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < targets
    key = tl.full((BLOCK,), 0, tl.int64)
    if word == WORDS - 1:
        key -= (row // GROUP).to(tl.int64) << BITS
    for offset in range(SIZE):
        bit = tl.load(rank + offset).to(tl.int32) - word * BITS
        here = inside & (bit >= 0) & (bit < BITS)
        source = tl.load(neighbours + row.to(tl.int64) * SIZE + offset, mask=here, other=-1)
        key += (source >= 0).to(tl.int64) << (bit & 63)
    tl.store(keys + word.to(tl.int64) * targets + row, key, mask=inside)


@triton.jit(do_not_specialize=["targets", "tiles"])
def fill_tiles(
    neighbours,
    ordered,
    order,
    sources,
    needs,
    needed,
    counts,
    targets,
    width,
    tiles,
    SIZE: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write all of ``MaskedTiles`` that goes tile by tile; ``needs`` (SIZE, tiles) is whether one needs an offset."""
    tile = tl.program_id(0)
    place = tile * TILE + tl.arange(0, TILE)
    inside = place < targets
    row = tl.load(ordered + place, mask=inside, other=0)
    tl.store(order + place, row.to(tl.int32))
    count = 0
    for offset in range(SIZE):
        source = tl.load(neighbours + row * SIZE + offset, mask=inside, other=-1)
        tl.store(sources + offset * width.to(tl.int64) + place, source)
        needing = (tl.reduce((source >= 0).to(tl.int32), 0, _add) > 0).to(tl.int32)
        tl.store(needs + offset * tiles + tile, needing)
        # those that are not needed fill the end, from behind
        at = needing * count + (1 - needing) * (SIZE - 1 - offset + count)
        tl.store(needed + tile * SIZE + at, offset)
        count += needing
    tl.store(counts + tile, count)


@triton.jit(do_not_specialize=["targets", "splits"])
def gather_multiply(
    rows,
    weight,
    bias,
    out,
    order,
    sources,
    needed,
    counts,
    targets,
    width,
    weight_offset,
    weight_in,
    weight_out,
    splits,
    SIZE: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    TILE: tl.constexpr,
    MIRRORED: tl.constexpr,
    BIAS: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """(S, IN) rows -> (T, OUT): the sum over offsets of what each target reads, times its weights.

    With several splits, each writes the sum over its share of the offsets, (splits, T, OUT).
    """
    parts: tl.constexpr = (OUT + BLOCK_OUT - 1) // BLOCK_OUT
    blocks: tl.constexpr = (IN + BLOCK_IN - 1) // BLOCK_IN
    program = tl.program_id(0)
    split = tl.program_id(1)
    block = program // parts
    place = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = program % parts * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    tile = block * BLOCK_ROWS // TILE
    count = tl.load(counts + tile)
    first = count * split // splits
    last = count * (split + 1) // splits
    acc = tl.full((BLOCK_ROWS, BLOCK_OUT), 0, SUM)
    # What a step gathers by is loaded during the step before, and its offset two steps before: none waits.
    last_place = tile * SIZE + SIZE - 1
    offset = tl.load(needed + tl.minimum(tile * SIZE + first, last_place))
    source = tl.load(sources + offset.to(tl.int64) * width + place)
    after = tl.load(needed + tl.minimum(tile * SIZE + first + 1 // blocks, last_place))
    for step in range(first * blocks, last * blocks):
        channel = step % blocks * BLOCK_IN + tl.arange(0, BLOCK_IN)
        reads = (source >= 0)[:, None]
        fits = (channel < IN)[:, None] & (column < OUT)[None, :]
        if IN % BLOCK_IN != 0:
            reads = reads & (channel < IN)[None, :]
        left = tl.load(
            rows + source.to(tl.int64)[:, None] * IN + channel[None, :], mask=reads, other=0.0
        )
        matrix = offset
        if MIRRORED:
            matrix = SIZE - 1 - offset
        right = tl.load(
            weight
            + matrix * weight_offset
            + channel[:, None] * weight_in
            + column[None, :] * weight_out,
            mask=fits,
            other=0.0,
        )
        source = tl.load(sources + after.to(tl.int64) * width + place)
        # loaded twice: a value handed on from step to step would keep Triton from overlapping steps
        offset = tl.load(needed + tl.minimum(tile * SIZE + (step + 1) // blocks, last_place))
        after = tl.load(needed + tl.minimum(tile * SIZE + (step + 2) // blocks, last_place))
        if WIDEN:  # the interpreter would multiply the bits of bfloat16
            left, right = left.to(SUM), right.to(SUM)
        acc = tl.dot(left, right, acc, input_precision=PRECISION, out_dtype=SUM)
    if BIAS:
        acc += tl.load(bias + column, mask=column < OUT, other=0.0).to(SUM)[None, :]
    row = tl.load(order + place).to(tl.int64) + split.to(tl.int64) * targets
    inside = (place < targets)[:, None] & (column < OUT)[None, :]
    tl.store(out + row[:, None] * OUT + column[None, :], acc.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["tiles", "splits"])
def correlate(
    feat,
    grad,
    sums,
    order,
    sources,
    needing,
    tile_counts,
    width,
    tiles,
    splits,
    SIZE: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    TILE: tl.constexpr,
    MIRRORED: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """(S, IN) and (T, OUT) -> (splits, OUT, SIZE, IN): gradients of the weights, over a share of the tiles each."""
    parts: tl.constexpr = (IN + BLOCK_IN - 1) // BLOCK_IN
    pieces: tl.constexpr = TILE // BLOCK_ROWS
    program = tl.program_id(0)
    offset = tl.program_id(1)
    split = tl.program_id(2)
    channel = program % parts * BLOCK_IN + tl.arange(0, BLOCK_IN)
    column = program // parts * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    count = tl.load(tile_counts + offset)
    first = (count.to(tl.int64) * split // splits).to(tl.int32)
    last = (count.to(tl.int64) * (split + 1) // splits).to(tl.int32)
    acc = tl.full((BLOCK_OUT, BLOCK_IN), 0, SUM)
    lanes = tl.arange(0, BLOCK_ROWS)
    final = offset * tiles + tiles - 1
    tile = tl.load(needing + tl.minimum(offset * tiles + first, final))
    place = tile * TILE + lanes
    source = tl.load(sources + offset.to(tl.int64) * width + place)
    target = tl.load(order + place)
    tile = tl.load(needing + tl.minimum(offset * tiles + first + 1 // pieces, final))
    for step in range(first * pieces, last * pieces):
        reads = source >= 0
        left = tl.load(
            grad + target.to(tl.int64)[None, :] * OUT + column[:, None],
            mask=reads[None, :] & (column < OUT)[:, None],
            other=0.0,
        )
        right = tl.load(
            feat + source.to(tl.int64)[:, None] * IN + channel[None, :],
            mask=reads[:, None] & (channel < IN)[None, :],
            other=0.0,
        )
        place = tile * TILE + (step + 1) % pieces * BLOCK_ROWS + lanes
        source = tl.load(sources + offset.to(tl.int64) * width + place)
        target = tl.load(order + place)
        tile = tl.load(needing + tl.minimum(offset * tiles + (step + 2) // pieces, final))
        if WIDEN:  # the interpreter would multiply the bits of bfloat16
            left, right = left.to(SUM), right.to(SUM)
        acc = tl.dot(left, right, acc, input_precision=PRECISION, out_dtype=SUM)
    if MIRRORED:
        offset = SIZE - 1 - offset
    row = (split * OUT + column).to(tl.int64) * SIZE + offset
    inside = (column < OUT)[:, None] & (channel < IN)[None, :]
    tl.store(sums + row[:, None] * IN + channel[None, :], acc, mask=inside)
