"""Cells of voxels along curves and on the grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pointseg.ops.attention.space_filling_curves import ORDERS, encode
from pointseg.ops.grouping.pooling import pool_cells, pool_grid
from pointseg.ops.grouping.segments import Segments


def voxels(count, depth, seed=0):
    rng = np.random.default_rng(seed)
    places = rng.choice(2 * 8**depth, count, replace=False)  # two clouds
    cells, batch = places % 8**depth, places // 8**depth
    coord = np.stack([cells >> 2 * depth, cells >> depth, cells], 1) & (2**depth - 1)
    return torch.from_numpy(coord), torch.from_numpy(batch)


@pytest.mark.parametrize("first", range(len(ORDERS)))
@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_cells_are_those_that_sorting_finds(halvings, first):
    coord, batch = voxels(300, 4)
    codes = encode(coord, batch, 4)
    offset = torch.bincount(batch, minlength=3).cumsum(0)  # the last cloud has no points
    pooled = pool_cells(codes, codes.argsort(), offset, halvings=halvings, first=first)
    for number in range(len(ORDERS)):
        cells = codes[number] >> 3 * halvings
        wanted, inverse = torch.unique(cells, return_inverse=True)
        if number == first:  # cells are numbered along this curve
            assert torch.equal(pooled.codes[first], wanted)
            assert torch.equal(pooled.segments.index, inverse)
        assert torch.equal(pooled.codes[number][pooled.orders[number]], wanted)
        assert torch.equal(pooled.codes[number][pooled.segments.index], cells)
    assert torch.equal(pooled.segments.index[pooled.heads], torch.arange(len(pooled.heads)))
    again = Segments.of(pooled.segments.index, len(pooled.heads))
    assert torch.equal(pooled.segments.starts, again.starts)
    members = torch.cat([coord >> halvings, batch[:, None]], 1)
    assert torch.equal(members[pooled.heads][pooled.segments.index], members)
    counts = torch.bincount(batch[pooled.heads], minlength=3)
    assert pooled.counts == tuple(counts.tolist())
    assert torch.equal(pooled.offset, counts.cumsum(0))


def test_one_voxel():
    pooled = pool_cells(torch.tensor([[5]]), torch.tensor([[0]]), torch.tensor([1]))
    assert pooled.segments.index.tolist() == [0] and pooled.codes[0].tolist() == [0]
    assert pooled.segments.starts.tolist() == [0, 1]


def test_cells_of_a_grid_by_hand():
    grid = torch.tensor([[5, 0, 1], [0, 3, 2], [4, 1, 0], [0, 2, 3], [0, 0, 0], [0, 2, 3]])
    batch = torch.tensor([0, 0, 0, 0, 1, 1])
    offset = torch.tensor([4, 6])
    cells = pool_grid(grid, batch, offset, 2)
    segments, heads = cells.segments, cells.heads
    # sorted by cloud, x, y, z: (0; 0, 1, 1), (0; 2, 0, 0), (1; 0, 0, 0), (1; 0, 1, 1)
    assert segments.index.tolist() == [1, 0, 1, 0, 2, 3]
    assert heads.tolist() == [1, 0, 4, 5]
    assert segments.counts.tolist() == [2, 2, 1, 1]
    assert cells.counts == (2, 2) and cells.offset.tolist() == [2, 4]
    assert pool_grid(grid, batch, offset, 3).segments.index.tolist() == [2, 1, 2, 0, 3, 4]
    one = pool_grid(grid[:1], batch[:1], torch.tensor([1]), 1).segments
    assert one.index.tolist() == [0] and one.starts.tolist() == [0, 1]
