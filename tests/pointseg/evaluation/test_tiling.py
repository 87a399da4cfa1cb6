"""Tiles: every point in one core, budgets kept, margins there."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.evaluation.tiling import tiles


def cloud(count=20_000, size=(30, 20, 3), seed=0):
    return (np.random.default_rng(seed).random((count, 3)) * size).astype(np.float32)


def test_four_points_in_two_tiles_by_hand():
    coord = np.array([[0, 0, 0], [1, 0, 0], [10, 0, 0], [11, 0, 0]], np.float32)
    first, second = tiles(coord, max_points=2, margin_m=1)
    assert first.high[0] == second.low[0] == 5.5  # the median of the longer side
    np.testing.assert_array_equal(first.select(coord)[0], [0, 1])
    np.testing.assert_array_equal(second.select(coord)[0], [2, 3])
    wide = tiles(coord, max_points=3, margin_m=9.5)
    assert [len(tile.select(coord)[0]) for tile in wide] == [2, 2]  # margins shrink to half a side


def test_a_cloud_within_the_budget_is_one_tile():
    coord = cloud(500)
    (only,) = tiles(coord, max_points=500, margin_m=2)
    index, core = only.select(coord)
    assert len(index) == 500 and core.all()


@pytest.mark.parametrize("size", [(30, 20, 3), (200, 2, 3), (1, 90, 1), (5, 5, 50)])
def test_every_point_is_in_one_core_and_no_tile_is_over_the_budget(size):
    coord = cloud(size=size)
    times = np.zeros(len(coord), int)
    for tile in tiles(coord, max_points=1500, margin_m=0.5):
        index, core = tile.select(coord)
        assert len(index) <= 1500
        times[index[core]] += 1
    assert (times == 1).all()


def test_cores_have_their_margin_around_them():
    coord = cloud()
    for tile in tiles(coord, max_points=3000, margin_m=1.0):
        index, core = tile.select(coord)
        inner = coord[index[core]][::50]
        for point in inner:
            near = np.flatnonzero((np.abs(coord[:, :2] - point[:2]) <= 0.999).all(1))
            assert np.isin(near, index).all()


def test_tiles_are_nearly_square_whatever_the_extents():
    for size in ((60, 15, 3), (15, 60, 3), (100, 5, 3)):
        coord = cloud(size=size)
        found = tiles(coord, max_points=1500, margin_m=0)
        for tile in found:
            index, core = tile.select(coord)
            sides = np.ptp(coord[index[core]][:, :2], axis=0)
            assert sides.max() / sides.min() < 3
        assert len(found) <= 2 * len(coord) / 1500 + 1  # none is wasted


def test_dense_places_get_more_tiles():
    rng = np.random.default_rng(0)
    dense = rng.random((9000, 3)) * [2, 2, 1]
    sparse = rng.random((1000, 3)) * [20, 20, 1]
    coord = np.concatenate([dense, sparse]).astype(np.float32)
    small = [t for t in tiles(coord, max_points=1000, margin_m=0.0) if max(t.high) <= 4]
    assert len(small) >= 8


def test_points_above_each_other_cannot_be_parted():
    coord = np.zeros((100, 3), np.float32)
    coord[:, 2] = np.arange(100)
    (only,) = tiles(coord, max_points=10, margin_m=1)
    assert only.select(coord)[1].all()
    mostly = np.concatenate([coord, [[1, 0, 0], [2, 0, 0]]]).astype(np.float32)
    sizes = [tile.select(mostly)[1].sum() for tile in tiles(mostly, max_points=10, margin_m=0)]
    assert sorted(sizes) == [2, 100]


def test_what_points_stand_for_counts_too():
    coord = cloud(1000)
    counts = np.full(1000, 7)
    for tile in tiles(coord, max_points=1000, margin_m=0, counts=counts, max_count=700):
        assert len(tile.select(coord)[0]) <= 100


def test_tiles_are_no_wider_than_a_grid():
    coord = cloud(100, size=(1000, 10, 1))
    found = tiles(coord, max_points=1000, margin_m=1, max_side_m=300)
    assert 4 <= len(found) <= 8
    assert all(np.ptp(coord[tile.select(coord)[0], 0]) <= 300 for tile in found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_points": 0}, "'max_points' and 'max_count' must be >= 1"),
        ({"max_count": 0}, "'max_points' and 'max_count' must be >= 1"),
        ({"margin_m": -1}, "'margin_m' must be >= 0"),
        ({"coord": np.zeros((0, 3))}, "at least one point"),
    ],
)
def test_what_cannot_be_tiled_is_refused(changes, message):
    given = {"coord": cloud(10), "max_points": 5, "margin_m": 1.0} | changes
    with pytest.raises(ValueError, match=message):
        tiles(**given)


def test_far_outliers_do_not_cut_up_the_rest():
    rng = np.random.default_rng(0)
    coord = np.concatenate([rng.random((500, 3)) * 9, [[-7e5, 3, 0], [2, 5e6, 0], [-7e5, 4, 0]]])
    found = tiles(coord, max_points=10**6, margin_m=2, max_side_m=100)
    assert sorted(int(tile.select(coord)[1].sum()) for tile in found) == [1, 2, 500]
    # a corridor that is evenly filled is halved, not peeled
    long = np.zeros((400, 3))
    long[:, 0] = np.arange(400)
    found = tiles(long, max_points=10**6, margin_m=0, max_side_m=100)
    assert sorted(int(tile.select(long)[1].sum()) for tile in found) == [100] * 4
