"""Which points share a voxel, and one point of each voxel."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.geometry.voxels import MAX_CELLS, voxel_downsample, voxelize
from pointseg.scene import Scene
from pointseg.transforms import GridSample

# Along x in voxels of 0.5 m: cells -1, -1, 0, 2; the second of them higher by one cell.
POINTS = np.array(
    [[-0.5, 0, 0], [0.2, 0, 0], [-0.1, 0, 0.7], [-0.01, 0, 0], [1.0, 0, 0]], np.float32
)


def cloud(count=500, seed=0, extent=2.0):
    rng = np.random.default_rng(seed)
    return (rng.random((count, 3)) * extent - extent / 2).astype(np.float32)


def scene(coord):
    rows = np.arange(len(coord))
    return Scene(coord, {"row": rows, "segment": (rows % 7).astype(np.int32)})


def test_by_hand():
    voxels = voxelize(POINTS, 0.5)
    assert voxels.grid_coord.tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0], [3, 0, 0]]
    assert voxels.inverse.tolist() == [0, 2, 1, 0, 3]
    assert voxels.counts.tolist() == [2, 1, 1, 1]
    assert voxels.order.tolist() == [0, 3, 2, 1, 4]
    assert voxels.starts.tolist() == [0, 2, 3, 4]
    assert voxels.first.tolist() == [0, 2, 1, 4]
    assert voxels.grid_coord.dtype == np.int32 and len(voxels) == 4


@pytest.mark.parametrize("size", [0.03, 0.3, 1.1, 50.0])
def test_as_sorting_rows_of_cells_does(size):
    coord = cloud()
    cells = np.floor(coord.astype(np.float64) / size).astype(int)
    wanted, inverse, counts = np.unique(
        cells - cells.min(0), axis=0, return_inverse=True, return_counts=True
    )
    voxels = voxelize(coord, size)
    np.testing.assert_array_equal(voxels.grid_coord, wanted)
    np.testing.assert_array_equal(voxels.inverse, inverse.ravel())
    np.testing.assert_array_equal(voxels.counts, counts)
    np.testing.assert_array_equal(voxels.order, np.argsort(inverse.ravel(), kind="stable"))


def test_the_order_of_points_does_not_matter():
    coord, shuffle = cloud(), np.random.default_rng(1).permutation(500)
    one, other = voxelize(coord, 0.3), voxelize(coord[shuffle], 0.3)
    np.testing.assert_array_equal(one.grid_coord, other.grid_coord)
    np.testing.assert_array_equal(one.inverse[shuffle], other.inverse)


@pytest.mark.parametrize("shift", [-3.0, 7.0, 4096.0])
def test_a_shift_by_whole_voxels_changes_nothing(shift):
    coord = (np.round(cloud() * 1024) / 1024).astype(np.float32)  # so that float32 holds the sums
    one, other = voxelize(coord, 0.25), voxelize(coord + np.float32(shift), 0.25)
    np.testing.assert_array_equal(one.grid_coord, other.grid_coord)
    np.testing.assert_array_equal(one.inverse, other.inverse)


def test_georeferenced_positions_in_float64():
    coord = np.round(cloud().astype(np.float64), 3)
    moved = coord + [5_700_000.0, 4_500_000.0, 90.0]  # multiples of 0.3
    inside = np.abs(coord / 0.3 - np.round(coord / 0.3)).min(1) > 1e-6  # not on a face
    one, other = voxelize(coord[inside], 0.3), voxelize(moved[inside], 0.3)
    np.testing.assert_array_equal(one.inverse, other.inverse)


def test_one_point():
    voxels = voxelize(np.array([[-9e30, 3, 5e30]], np.float32), 1e-3)
    assert voxels.grid_coord.tolist() == [[0, 0, 0]] and voxels.counts.tolist() == [1]


def test_many_cells_need_the_slower_sort():
    ends = np.array([[0, 0, 0], [65535, 65535, 65535], [65535, 65535, 65535], [0, 65535, 0]])
    coord = np.tile(ends + 0.5, (10_000, 1))
    voxels = voxelize(coord, 1.0)
    assert voxels.grid_coord.tolist() == [[0, 0, 0], [0, 65535, 0], [65535, 65535, 65535]]
    assert voxels.counts.tolist() == [10_000, 10_000, 20_000]
    assert voxels.order[:3].tolist() == [0, 4, 8]
    assert voxels.inverse[:4].tolist() == [0, 2, 2, 1]


def test_a_random_point_of_each_voxel_with_all_its_fields():
    coord = cloud()
    whole = scene(coord)
    voxels = voxelize(coord, 0.4)
    sample = GridSample(voxel_m=0.4)(whole, np.random.default_rng(3))
    rows = sample["row"]
    np.testing.assert_array_equal(voxels.inverse[rows], np.arange(len(voxels)))
    np.testing.assert_array_equal(sample.coord, coord[rows])
    np.testing.assert_array_equal(sample["segment"], rows % 7)
    np.testing.assert_array_equal(sample["grid_coord"], voxels.grid_coord)
    again = GridSample(voxel_m=0.4)(whole, np.random.default_rng(3))
    np.testing.assert_array_equal(again["row"], rows)
    other = GridSample(voxel_m=0.4)(whole, np.random.default_rng(4))
    assert (other["row"] != rows).any()


def test_all_points_of_a_voxel_are_equally_likely():
    voxels, rng = voxelize(np.zeros((4, 3)), 1.0), np.random.default_rng(0)
    drawn = np.bincount([voxels.random(rng)[0] for _ in range(4000)], minlength=4)
    assert (abs(drawn - 1000) < 120).all()  # four standard deviations


def test_downsampling_keeps_the_first_point_of_each_voxel():
    coord = cloud()
    sampled, inverse = voxel_downsample(scene(coord), 0.3)
    voxels = voxelize(coord, 0.3)
    np.testing.assert_array_equal(sampled["row"], voxels.first)
    np.testing.assert_array_equal(inverse, voxels.inverse)
    assert (np.abs(sampled.coord[inverse] - coord) < 0.3 + 1e-6).all()
    assert "grid_coord" not in sampled


def test_downsampling_takes_more_cells_than_a_network():
    coord = np.array([[0, 0, 0], [MAX_CELLS, 0, 0]], np.float32)
    assert len(voxel_downsample(scene(coord), 1.0)[0]) == 2
    with pytest.raises(ValueError, match="65,537 cells, at most 65,536"):
        voxelize(coord, 1.0)


def test_millimetres_are_named():
    room = cloud(extent=6000)  # a room of 6 m, in millimetres
    with pytest.raises(ValueError, match=r"0\.02 m .* along x .*metres: divide them by 1000"):
        voxelize(room, 0.02)


@pytest.mark.parametrize(
    ("coord", "size", "match"),
    [
        (np.zeros((0, 3)), 0.1, "at least one point"),
        (np.zeros((4, 2)), 0.1, r"\(N, 3\), got \(4, 2\)"),
        (np.zeros(3), 0.1, r"\(N, 3\)"),
        (np.array([[0, 0, 0], [0, np.nan, 0]]), 0.1, "1 of 2 points have NaN"),
        (np.array([[0, 0, np.inf], [0, 0, 0]]), 0.1, "finite"),
        (np.zeros((2, 3)), 0.0, "above 0"),
        (np.zeros((2, 3)), -1.0, "above 0"),
        (np.zeros((2, 3)), float("nan"), "above 0"),
        (np.zeros((2, 3)), float("inf"), "above 0"),
        (np.array([[-1e300, 0, 0], [1e300, 0, 0]]), 1e-300, "cells, at most"),
        (np.array([[1e300, 0, 0]]), 1e-300, "cells, at most"),
    ],
)
def test_refused(coord, size, match):
    with pytest.raises(ValueError, match=match):
        voxelize(coord, size)


def test_outliers_however_far_do_not_change_downsampling():
    rng = np.random.default_rng(0)
    coord = rng.random((500, 3)).astype(np.float32)
    expected, inverse = voxel_downsample(scene(coord), 0.1)
    far = np.array([[3e8, 0.5, 0.5], [0.5, -3e30, 0.5], [-1e7, 2e7, 3e12]], np.float32)
    found, index = voxel_downsample(scene(np.concatenate([coord, far])), 0.1)
    assert len(found) == len(expected) + 3
    for one in range(500):  # the same points share a voxel as without them
        assert found.coord[index[one]].tolist() == expected.coord[inverse[one]].tolist()
    assert found.coord[index[500:]].tolist() == far.tolist()
    with pytest.raises(ValueError, match="at most 65,536 are possible"):
        voxelize(np.concatenate([coord, far]), 0.1)
