"""Rows in tiles: nothing lost, rows alike put together, hand-worked lists."""

import pytest
import torch

from pointseg.ops.convolution import masked_tiles
from pointseg.ops.convolution.masked_tiles import TILE


def neighbours(rows, size, density, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(rows, size, generator=generator) < density
    source = torch.randint(0, 1000, (rows, size), generator=generator, dtype=torch.int32)
    return source.masked_fill(~found, -1)


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (TILE, 8), (300, 27), (700, 125), (0, 27)])
def test_every_row_is_in_one_place_with_all_its_neighbours(rows, size, monkeypatch):
    monkeypatch.setattr(masked_tiles, "GROUP", 256)
    table = neighbours(rows, size, 0.2)
    tiles = masked_tiles.masked_tiles(table)
    order = tiles.order[:rows].long()
    assert torch.equal(order.sort().values, torch.arange(rows))
    assert torch.equal(tiles.sources[:, :rows], table[order].T)
    assert (tiles.sources[:, rows:] == -1).all() and (tiles.order[rows:] == 0).all()
    assert (order // 256).diff().ge(0).all()  # groups stay together
    for tile in range(len(tiles.counts)):
        part = tiles.sources[:, tile * TILE : (tile + 1) * TILE]
        needed = tiles.needed[tile, : tiles.counts[tile]].tolist()
        assert needed == [k for k in range(size) if (part[k] >= 0).any()]
        assert sorted(tiles.needed[tile].tolist()) == list(range(size))
    for offset in range(size):
        needing = tiles.needing[offset, : tiles.tile_counts[offset]].tolist()
        assert needing == [
            t for t in range(len(tiles.counts)) if offset in tiles.needed[t, : tiles.counts[t]]
        ]


def test_rows_with_the_rarest_neighbour_come_first():
    """Of three offsets: all rows have the first, some the third, few the second."""
    table = torch.zeros(6, 3, dtype=torch.int32)
    table[:, 1] = torch.tensor([-1, -1, 7, -1, -1, -1])
    table[:, 2] = torch.tensor([7, -1, -1, 7, -1, 7])
    tiles = masked_tiles.masked_tiles(table)
    assert tiles.order[:6].tolist() == [2, 0, 3, 5, 1, 4]


@pytest.mark.parametrize("size", [27, 125])
def test_tiles_need_only_what_their_rows_have(size):
    """Rows of four kinds, shuffled: each tile holds rows of one kind, also where a mask is longer than a word."""
    kinds = neighbours(4, size, 0.3, seed=1)
    kinds[:, 0] = 0
    which = torch.arange(4 * TILE) % 4
    tiles = masked_tiles.masked_tiles(kinds[which])
    expected = sorted((kinds >= 0).sum(1).tolist())
    assert sorted(tiles.counts.tolist()) == expected


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (300, 27), (130, 50), (0, 8)])
def test_kernels_make_the_same(rows, size, device_blocks):
    """One tile and several, one word and two."""
    table = neighbours(rows, size, torch.linspace(0, 1, size))
    expected, found = masked_tiles.masked_tiles(table), device_blocks.masked_tiles(table)
    for name in ("order", "sources", "needs", "counts", "needing", "tile_counts"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for ours, theirs, count in zip(found.needed, expected.needed, found.counts, strict=True):
        assert torch.equal(ours[:count], theirs[:count])
        assert torch.equal(ours.sort().values, theirs.sort().values)
