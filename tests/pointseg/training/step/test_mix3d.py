"""Merging pairs of clouds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pointseg.cloud import Cloud, collate
from pointseg.training.step.mix3d import mix3d


def cloud(count, seed, *, cells=4, images=True):
    """A cloud whose fields all tell the row, and whose voxels are unique."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.randperm(cells**3, generator=generator)[:count]
    grid = torch.stack([place // cells**2, place // cells % cells, place % cells], dim=1)
    row = 1000 * seed + torch.arange(count)
    return Cloud(
        coord=torch.randn(count, 3, generator=generator),
        grid_coord=grid,
        feat=row[:, None].repeat(1, 2).float(),
        offset=torch.tensor([count]),
        segment=row,
        image_coord=row[:, None, None].repeat(1, 3, 2).float() if images else None,
        image_mask=(row[:, None] % torch.tensor([2, 3, 5])) == 0 if images else None,
    )


def mixed(clouds, probability=1.0, seed=0):
    return mix3d(collate(clouds), probability, np.random.default_rng(seed))


def test_by_hand():
    def at(*cells):
        grid = torch.tensor([[c, 0, 0] for c in cells])
        return Cloud(
            coord=grid.float(),
            grid_coord=grid,
            feat=grid.float(),
            offset=torch.tensor([len(cells)]),
        )

    made = mixed([at(0, 1, 2), at(2, 3), at(5, 6), at(7)])
    assert made.offset.tolist() == [4, 7]  # five points, of which two share a voxel; three
    assert made.image_offset.tolist() in ([3, 4, 6, 7], [2, 4, 6, 7])
    assert made.grid_coord[:, 0].tolist() == [0, 1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("counts", [(30, 20), (30, 20, 25), (30, 1, 25, 40), (10, 20, 30, 40, 50)])
def test_pairs_are_merged_and_voxels_stay_unique(counts):
    clouds = [cloud(count, seed) for seed, count in enumerate(counts)]
    whole, made = collate(clouds), mixed(clouds)
    pairs = (len(counts) + 1) // 2
    assert len(made.offset) == pairs and len(made.image_offset) == len(counts)
    assert made.offset[-1] == len(made) == made.image_offset[-1]
    assert torch.equal(made.offset, torch.cat([made.image_offset[1::2], made.offset[-1:]])[:pairs])
    # exactly the voxels that a pair had, each once
    for pair in range(pairs):
        rows = made.grid_coord[made.batch == pair].tolist()
        wanted = whole.grid_coord[whole.batch // 2 == pair].tolist()
        assert len({tuple(r) for r in rows}) == len(rows)
        assert {tuple(r) for r in rows} == {tuple(r) for r in wanted}
    if len(counts) % 2:
        assert (made.batch == pairs - 1).sum() == counts[-1]  # the one without a partner


def test_all_fields_stay_together_and_in_order():
    clouds = [cloud(count, seed) for seed, count in enumerate((40, 50, 30, 20))]
    whole, made = collate(clouds), mixed(clouds)
    place = {int(row): n for n, row in enumerate(whole.segment)}
    kept = torch.tensor([place[int(row)] for row in made.segment])
    assert (kept.diff() > 0).all()
    for name in ("coord", "grid_coord", "feat", "segment", "image_coord", "image_mask"):
        assert torch.equal(getattr(made, name), getattr(whole, name)[kept])
    # the images that each point is looked up in are those of the sample it came from
    sample = torch.bucketize(torch.arange(len(made)), made.image_offset, right=True)
    assert torch.equal(sample, made.segment // 1000)


def test_which_of_two_points_stays_is_random():
    clouds = [cloud(64, 0), cloud(64, 1)]  # both fill all voxels
    made = mixed(clouds)
    assert len(made) == 64
    assert 16 < (made.segment < 1000).sum() < 48
    assert torch.equal(made.segment, mixed(clouds).segment)
    assert not torch.equal(made.segment, mixed(clouds, seed=1).segment)


def test_probability():
    clouds = collate([cloud(10, 0), cloud(10, 1)])
    rng = np.random.default_rng(0)
    assert mix3d(clouds, 0.0, rng) is clouds
    assert 740 < sum(mix3d(clouds, 0.8, rng) is not clouds for _ in range(1000)) < 860


def test_one_cloud_has_no_partner():
    alone = cloud(10, 0)
    assert mix3d(alone, 1.0, np.random.default_rng(0)) is alone


def test_fields_that_are_not_there_stay_away():
    made = mixed([cloud(10, 0, images=False), cloud(10, 1, images=False)])
    assert made.image_coord is None and made.image_mask is None


def test_refused():
    clouds = collate([cloud(10, 0), cloud(10, 1)])
    with pytest.raises(ValueError, match="'probability' must be in 0 to 1"):
        mix3d(clouds, 1.5, np.random.default_rng(0))
    clouds.grid_coord[3, 1] = -1
    with pytest.raises(ValueError, match="'grid_coord' must be >= 0"):
        mix3d(clouds, 1.0, np.random.default_rng(0))
    clouds.grid_coord[3] = 2**31
    with pytest.raises(ValueError, match="below 65536"):
        mix3d(clouds, 1.0, np.random.default_rng(0))
