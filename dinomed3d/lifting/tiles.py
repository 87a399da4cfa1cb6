"""Large images in overlapping tiles: attention sees one tile at a time, features keep the image's resolution.

cells of a row        0 1 2 3 4 5 6 7 8 9      tiles of 6 cells that start at 0 and 4
first tile            a a a a a a              cells 4 and 5 are in both
second tile                   b b b b b b
result                a a a a a b b b b b      each from the tile whose middle is nearer
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

OVERLAP = 0.25
"""Share of a tile that it has in common with the next one, at least."""
TILES_AT_ONCE = 16
"""Tiles that are cut out and encoded together."""


def encode_in_tiles(
    encode: Callable[[Tensor], Tensor], images: Tensor, *, tile: int, stride: int
) -> Tensor:
    """The feature maps of images, encoded tile by tile and cropped so that they meet.

    Tiles are squares, shorter where the image is, and evenly spread. Each cell is taken from the tile in which
    it is farthest from the border, where an encoder sees least of its surroundings. Memory is that of the
    result and of ``TILES_AT_ONCE`` tiles.

    Args:
        encode: (K, 3, a, b) images -> (K, C, a / stride, b / stride) maps, sides multiples of ``stride``.
        images: (V, 3, H, W), V >= 1, sides multiples of ``stride``.
        tile: side of a tile, pixels, a multiple of ``stride``.
        stride: pixels per cell.

    Returns:
        (V, C, H / stride, W / stride); where a tile covers the image, exactly what ``encode`` gives.

    Raises:
        ValueError: a side or the tile is no multiple of the stride.
    """
    height, width = images.shape[-2:]
    if tile < 1 or tile % stride or height % stride or width % stride:
        raise ValueError(
            f"encode_in_tiles: 'tile' and the sides of 'images' must be multiples of {stride}, got {tile} and "
            f"{height} x {width}"
        )
    if tile >= max(height, width):
        return encode(images)
    rows = tiles_along(height // stride, tile // stride)
    columns = tiles_along(width // stride, tile // stride)
    whole: Tensor | None = None
    for number, image in enumerate(images):
        for some in _batches([(row, column) for row in rows for column in columns]):
            cut = [
                image[:, r.start * stride : r.end * stride, c.start * stride : c.end * stride]
                for r, c in some
            ]
            for (r, c), values in zip(some, encode(torch.stack(cut)), strict=True):
                if whole is None:
                    shape = (len(images), len(values), height // stride, width // stride)
                    whole = values.new_empty(shape)
                whole[number, :, r.first : r.last, c.first : c.last] = values[
                    :, r.first - r.start : r.last - r.start, c.first - c.start : c.last - c.start
                ]
    assert whole is not None  # there is an image, and every image has a tile
    return whole


@dataclass(frozen=True)
class Along:
    """A tile along one axis of an image, in cells; ends are exclusive."""

    start: int
    """The first cell that it covers."""
    end: int
    """After the last one that it covers."""
    first: int
    """The first cell that is taken from it."""
    last: int
    """After the last one that is taken from it."""


def tiles_along(cells: int, tile: int) -> list[Along]:
    """Evenly spread tiles along one axis, with the cells that each one gives.

    Args:
        cells: of the image, >= 1.
        tile: cells of a tile, >= 1.
    """
    tile = min(tile, cells)
    step = max(1, tile - int(OVERLAP * tile))
    count = -(-(cells - tile) // step) + 1
    starts = [number * (cells - tile) // max(1, count - 1) for number in range(count)]
    # Between two tiles the cells change hands in the middle of the middles; a tie goes to the former.
    cuts = [(a + b + tile - 1) // 2 + 1 for a, b in zip(starts, starts[1:], strict=False)]
    firsts, lasts = [0, *cuts], [*cuts, cells]
    return [
        Along(start, start + tile, first, last)
        for start, first, last in zip(starts, firsts, lasts, strict=True)
    ]


def _batches(tiles: list[tuple[Along, Along]]) -> Iterator[list[tuple[Along, Along]]]:
    for start in range(0, len(tiles), TILES_AT_ONCE):
        yield tiles[start : start + TILES_AT_ONCE]
