"""Images in tiles: which tile gives which cell, where the cells lie, how much is encoded at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dinomed3d.lifting import build_encoder
from dinomed3d.lifting.tiles import OVERLAP, TILES_AT_ONCE, encode_in_tiles, tiles_along

STRIDE = 4


def means(images):
    return F.avg_pool2d(images, STRIDE)


def from_border(images):
    """How far each cell is from the border of what was encoded, along the nearer axis."""
    h, w = images.shape[-2] // STRIDE, images.shape[-1] // STRIDE
    row, column = torch.arange(h).float(), torch.arange(w).float()
    rows, columns = torch.minimum(row, h - 1 - row), torch.minimum(column, w - 1 - column)
    return torch.stack([rows[:, None].expand(h, w), columns.expand(h, w)]).repeat(
        len(images), 1, 1, 1
    )


def test_by_hand():
    assert [(t.start, t.end, t.first, t.last) for t in tiles_along(10, 6)] == [
        (0, 6, 0, 5),
        (4, 10, 5, 10),
    ]
    assert [(t.start, t.end, t.first, t.last) for t in tiles_along(3, 6)] == [(0, 3, 0, 3)]


@pytest.mark.parametrize("tile", [1, 2, 3, 4, 7, 8, 37])
def test_each_cell_comes_from_the_tile_in_which_it_is_farthest_from_the_border(tile):
    for cells in range(1, 130):
        tiles = tiles_along(cells, tile)
        side = min(tile, cells)
        assert [c for t in tiles for c in range(t.first, t.last)] == list(range(cells))
        assert all(t.end - t.start == side and 0 <= t.start and t.end <= cells for t in tiles)
        for before, after in zip(tiles, tiles[1:], strict=False):
            assert before.end - after.start >= int(OVERLAP * side)
        for t in tiles:
            for c in range(t.first, t.last):
                distances = [min(c - o.start, o.end - 1 - c) for o in tiles]
                assert min(c - t.start, t.end - 1 - c) == max(distances)


def test_cells_lie_where_they_lie_in_the_whole_image():
    images = torch.rand(3, 3, 11 * STRIDE, 14 * STRIDE)
    for tile in (1, 3, 5, 12, 14):
        found = encode_in_tiles(means, images, tile=tile * STRIDE, stride=STRIDE)
        assert torch.equal(found, means(images))


def test_distances_from_the_border_are_those_of_the_rule():
    images = torch.zeros(1, 3, 9 * STRIDE, 23 * STRIDE)
    found = encode_in_tiles(from_border, images, tile=8 * STRIDE, stride=STRIDE)
    for axis, cells in enumerate((9, 23)):
        tiles = tiles_along(cells, 8)
        wanted = [max(min(c - t.start, t.end - 1 - c) for t in tiles) for c in range(cells)]
        along = found[0, axis, :, 0] if axis == 0 else found[0, axis, 0]
        assert along.tolist() == wanted


def test_an_image_within_a_tile_is_encoded_as_without_tiles():
    encoder = build_encoder(
        "vit_small_patch14_dinov2", weights="none", embed_dim=24, depth=2, num_heads=2, img_size=28
    )
    images = torch.rand(2, 3, 42, 56)

    def encode(some):
        asked.append(tuple(some.shape))
        return encoder(some)[-1].values

    for tile in (56, 70):
        asked = []
        found = encode_in_tiles(encode, images, tile=tile, stride=14)
        assert asked == [(2, 3, 42, 56)] and torch.equal(found, encode(images))
    asked = []
    assert not torch.equal(encode_in_tiles(encode, images, tile=42, stride=14), encode(images))
    assert asked[0] == (2, 3, 42, 42)  # tiles are full squares, or as short as the image


def test_a_constant_image_has_no_seams():
    images = torch.full((1, 3, 20 * STRIDE, 30 * STRIDE), 0.3)
    assert encode_in_tiles(means, images, tile=24, stride=STRIDE).unique().numel() == 1


def test_a_tile_at_a_time():
    """However large the image, the encoder gets a bounded number of pixels."""
    asked = []

    def encode(some):
        asked.append(some.shape)
        return means(some.float())

    images = torch.zeros(2, 3, 400, 600, dtype=torch.uint8)
    found = encode_in_tiles(encode, images, tile=40, stride=STRIDE)
    assert found.shape == (2, 3, 100, 150)
    assert max(len(shape) and shape[0] for shape in asked) == TILES_AT_ONCE
    assert {shape[1:] for shape in asked} == {(3, 40, 40)}


@pytest.mark.parametrize(("size", "tile"), [((40, 42), 16), ((40, 40), 18), ((40, 40), 0)])
def test_what_cuts_patches_is_refused(size, tile):
    with pytest.raises(ValueError, match="'tile'"):
        encode_in_tiles(means, torch.zeros(1, 3, *size), tile=tile, stride=STRIDE)
