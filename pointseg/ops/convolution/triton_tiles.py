"""Tiles of rows for the kernels in Triton, made by two of them and a sort."""

from __future__ import annotations

import torch
from torch import Tensor

from pointseg.ops.convolution import triton_kernels as kernels
from pointseg.ops.convolution.masked_tiles import BITS, GROUP, TILE, MaskedTiles, ranks, sorted_by

_ROWS = 128


def masked_tiles(neighbours: Tensor) -> MaskedTiles:
    """As ``masked_tiles.masked_tiles``; what is not needed may stand in another order."""
    targets, size = neighbours.shape
    words, tiles = -(-size // BITS), -(-targets // TILE)
    width = tiles * TILE
    keys = neighbours.new_empty(words, targets, dtype=torch.int64)
    made = MaskedTiles(
        order=neighbours.new_empty(width),
        sources=neighbours.new_empty(size, width),
        needs=neighbours.new_empty(size, tiles),
        needed=neighbours.new_empty(tiles, size),
        counts=neighbours.new_empty(tiles),
    )
    if not targets:
        return made
    with torch.cuda.device_of(neighbours):
        kernels.mask_rows[(-(-targets // _ROWS), words)](
            neighbours,
            ranks(neighbours),
            keys,
            targets,
            SIZE=size,
            GROUP=GROUP,
            BITS=BITS,
            WORDS=words,
            BLOCK=_ROWS,
        )
        kernels.fill_tiles[(tiles,)](
            neighbours,
            sorted_by(keys.unbind()),
            made.order,
            made.sources,
            made.needs,
            made.needed,
            made.counts,
            targets,
            width,
            tiles,
            SIZE=size,
            TILE=TILE,
        )
    return made
