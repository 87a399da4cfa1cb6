"""One point per cell, and points far from each other."""

from __future__ import annotations

import pytest
import torch

from pointseg.ops.grouping.subsampling import farthest_subsample, grid_subsample
from pointseg.ops.grouping.voxel_keys import voxel_keys
from pointseg.ops.hardware.pieces import decided_for


@pytest.fixture(autouse=True, params=["cpu", "cuda"])
def ways(request):
    """Everything here holds for the ways of a CPU and for those of other devices."""
    with decided_for(request.param):
        yield


def ends(*counts):
    return torch.tensor(counts).cumsum(0)


def voxels(count=400, seed=0, size=12):
    """Different voxels in random order."""
    generator = torch.Generator().manual_seed(seed)
    number = torch.randperm(size**3, generator=generator)[:count]
    return torch.stack([number // size**2, number // size % size, number % size], 1)


def test_a_grid_by_hand():
    cells = torch.tensor([[5, 0, 0], [0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 0, 0], [4, 4, 4]])
    # cells of three: (1, 0, 0) holds rows 0 and 4, equally near to its centre; (0, 0, 0) rows 1 to 3,
    # of which (1, 1, 1) is the centre; (1, 1, 1) holds row 5
    rows, offset, _ = grid_subsample(cells, ends(6), 3)
    assert rows.tolist() == [2, 4, 5] and offset.tolist() == [3]
    rows, offset, _ = grid_subsample(cells, ends(1, 3, 2), 3)
    assert rows.tolist() == [0, 2, 4, 5] and offset.tolist() == [1, 2, 4]


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_every_cell_keeps_one_point(side):
    grid_coord, offset = torch.cat([voxels(), voxels(300, 1)]), ends(400, 0, 300)
    rows, ends_of, host = grid_subsample(grid_coord, offset, side)
    cloud = torch.tensor([0] * 400 + [2] * 300)
    keys = torch.cat([cloud[:, None], grid_coord // side], 1)
    assert torch.equal(keys[rows], torch.unique(keys, dim=0))
    assert ends_of.tolist() == [int((cloud[rows] <= b).sum()) for b in range(3)]
    assert list(host) == ends_of.tolist()


@pytest.mark.parametrize("side", [2, 3, 4])
def test_order_of_points_does_not_matter_to_the_grid(side):
    grid_coord = voxels()
    moved = torch.randperm(400, generator=torch.Generator().manual_seed(2))
    rows, *_ = grid_subsample(grid_coord, ends(400), side)
    again, *_ = grid_subsample(grid_coord[moved], ends(400), side)
    assert torch.equal(grid_coord[moved][again], grid_coord[rows])


def test_the_grid_moves_by_whole_cells():
    grid_coord = voxels()
    rows, *_ = grid_subsample(grid_coord, ends(400), 4)
    again, *_ = grid_subsample(grid_coord + torch.tensor([4, 0, 8]), ends(400), 4)
    assert torch.equal(rows, again)


def test_farthest_by_hand():
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [4, 0, 0], [10, 0, 0], [9, 0, 0], [5.5, 0, 0]])
    # from 0 the farthest is 10, from both 5.5
    rows, offset, _ = farthest_subsample(line, ends(6), 2)
    assert rows.tolist() == [0, 3, 5] and offset.tolist() == [3]
    rows, offset, _ = farthest_subsample(line, ends(0, 5, 1), 4)
    assert rows.tolist() == [0, 3, 5] and offset.tolist() == [0, 2, 3]


def test_farthest_points_cover_the_cloud():
    coord = torch.rand(600, 3, generator=torch.Generator().manual_seed(0))
    rows, *_ = farthest_subsample(coord, ends(600), 6)
    assert len(rows.unique()) == 100
    between = torch.cdist(coord[rows], coord[rows]).fill_diagonal_(9).min()
    reach = torch.cdist(coord, coord[rows]).min(1).values.max()
    assert reach <= between  # else the farthest one left would have been taken


def test_nothing_is_left_of_nothing():
    none = torch.zeros(0, 3, dtype=torch.int64)
    assert [len(t) for t in grid_subsample(none, ends(0), 2)] == [0, 1, 1]
    assert [len(t) for t in farthest_subsample(none.float(), ends(0, 0), 2)] == [0, 2, 2]


def test_keys_ascend_with_cloud_and_voxel():
    grid_coord = torch.tensor([[0, 0, 9], [0, 1, 0], [3, 0, 0], [0, 0, 0]])
    keys = voxel_keys(grid_coord, torch.tensor([0, 0, 0, 1]))
    assert (keys.diff() > 0).all()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: grid_subsample(voxels(), ends(400), 0), "'side'"),
        (lambda: grid_subsample(voxels() - 1, ends(400), 2), "'grid_coord'"),
        (lambda: farthest_subsample(voxels().float(), ends(400), 0), "'stride'"),
        (lambda: voxel_keys(torch.tensor([[2**31, 2**31, 2]]), torch.tensor([0])), "62 bits"),
    ],
)
def test_what_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()
