"""Tiles of a kernel map: every pair once, every product summed where it belongs."""

import pytest
import torch

from pointseg.ops.convolution import cpu_tiles
from pointseg.ops.convolution.kernel_map import KernelMap
from pointseg.ops.convolution.masked_tiles import masked_tiles


def pairs(*lists):
    return [
        (torch.tensor(source, dtype=torch.int32), torch.tensor(target, dtype=torch.int32))
        for source, target in lists
    ]


def test_tile_by_hand():
    # targets 0, 1, 2; the pairs of the second offset come unsorted
    found = KernelMap(pairs(([5, 6], [0, 2]), ([], []), ([8, 7], [1, 0])), sources=9, targets=3)
    (tile,) = found.tiles
    assert [(s.offset, s.row, s.rows) for s in tile.sections] == [(0, 0, 2), (2, 2, 2)]
    assert [s.source.tolist() for s in tile.sections] == [[5, 6], [7, 8]]
    assert [s.target.tolist() for s in tile.sections] == [[0, 2], [0, 1]]
    assert tile.bag.tolist() == [0, 2, 3, 1]
    assert tile.bag_starts.tolist() == [0, 2, 3, 4]
    assert found.table.tolist() == [[5, 9, 7], [9, 9, 8], [6, 9, 9]]


def random_map(targets=3000, size=4, symmetric=False):
    generator = torch.Generator().manual_seed(0)
    lists = []
    for offset in range(size):
        count = targets // (offset + 1)
        source = torch.randperm(targets, generator=generator)[:count].int()
        target = torch.randperm(targets, generator=generator)[:count].int()
        lists.append((source, target))
    return KernelMap(lists, sources=targets, targets=targets, symmetric=symmetric)


@pytest.mark.parametrize("per_tile", [500, 2000, 100_000])
def test_tiles_hold_every_pair_once(per_tile, monkeypatch):
    monkeypatch.setattr(cpu_tiles, "PAIRS_PER_TILE", per_tile)
    found = random_map()
    tiles = found.tiles
    assert [t.first for t in tiles] + [3000] == [0] + [t.last for t in tiles]
    assert (len(tiles) > 1) == (per_tile < found.count)
    table = torch.full_like(found.table, found.sources)
    for tile in tiles:
        owner = torch.full((tile.rows,), -1)
        for s in tile.sections:
            assert s.rows >= len(s.source)
            table[s.target.long(), s.offset] = s.source
            owner[s.row : s.row + len(s.target)] = s.target.long()
        # what the bag of a row names are products for that row, each once
        counts = tile.bag_starts.diff()
        rows = torch.repeat_interleave(torch.arange(tile.first, tile.last), counts)
        assert torch.equal(owner[tile.bag.long()], rows)
        assert len(tile.bag.unique()) == sum(len(s.source) for s in tile.sections)
    assert torch.equal(table, found.table)


def test_long_sections_are_padded():
    (tile,) = random_map().tiles
    assert [len(s.source) for s in tile.sections] == [3000, 1500, 1000, 750]
    assert [s.rows for s in tile.sections] == [3072, 1536, 1024, 768]
    assert [cpu_tiles.padded(count) for count in (0, 255, 257, 40_000)] == [0, 255, 320, 40_960]


@pytest.mark.parametrize("symmetric", [True, False])
def test_tiles_of_kernels_are_cut_once_for_each_direction(symmetric):
    """A symmetric map and its transpose share them: offsets are then counted from the end."""
    found, cut = random_map(300, 3, symmetric), []

    def note(neighbours):
        cut.append(neighbours)
        return masked_tiles(neighbours)

    ways = [found, found.transposed, found, found.transposed.transposed, found.transposed]
    made = [way.masked_tiles(note) for way in ways]
    assert len(cut) == (1 if symmetric else 2)
    assert [tiles.mirrored for tiles in made] == [False, symmetric, False, False, symmetric]
    for way, tiles in zip(ways, made, strict=True):
        sources = tiles.sources.flip(0) if tiles.mirrored else tiles.sources
        assert torch.equal(sources[:, :300], way.neighbours[tiles.order[:300].long()].T)
