"""Thinning: as many points as asked for, the same rows of two files, and voxels of even density."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.files import CloudFileError, write_cloud
from pointseg.scene import Scene
from pointseg.viewing import thinning
from pointseg.viewing.thinning import columns_at, spread_rows, thin_by_voxels, thin_randomly

CROWD, EVEN = 4000, 400


@pytest.fixture(scope="module", params=[".ply", ".npz"])
def cloud(request, tmp_path_factory):
    """A crowd of points in 1 m, and few of them evenly on 20 m x 20 m, which are the last of the file."""
    random = np.random.default_rng(0)
    side = np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2) + 0.5
    coord = np.zeros((CROWD + EVEN, 3), np.float32)
    coord[:CROWD] = random.random((CROWD, 3)) * [1, 1, 0]
    coord[CROWD:, :2] = side
    path = tmp_path_factory.mktemp("cloud") / f"a{request.param}"
    write_cloud(path, Scene(coord=coord, fields={"row": np.arange(len(coord), dtype=np.int32)}))
    return path


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(thinning, "PIECE", 1000)


def test_rows_are_one_of_each_run():
    assert spread_rows(5, 9).tolist() == [0, 1, 2, 3, 4]
    rows = spread_rows(10_007, 100)
    assert len(rows) == 100
    runs = np.arange(101) * 10_007 // 100
    assert (rows >= runs[:-1]).all() and (rows < runs[1:]).all()
    assert len(set((rows - runs[:-1]).tolist())) > 30, (
        "not always the first: no pattern of scan lines"
    )


def test_as_many_points_as_asked_for_with_their_values(cloud):
    found = thin_randomly(cloud, 700)
    assert found.count == CROWD + EVEN and len(found.rows) == 700
    assert found.columns["row"].tolist() == found.rows.tolist()
    again = columns_at(cloud, found.rows)
    assert again.columns["row"].tolist() == found.rows.tolist() and again.count == found.count
    whole = thin_randomly(cloud, 10**6)
    assert whole.columns["row"].tolist() == list(range(CROWD + EVEN))


def test_voxels_keep_what_is_sparse(cloud):
    found = thin_by_voxels(cloud, 700)
    assert 500 < len(found.rows) <= 700 and (np.diff(found.rows) > 0).all()
    assert found.columns["row"].tolist() == found.rows.tolist()
    sparse = (found.rows >= CROWD).sum()
    assert sparse > 0.98 * EVEN, (
        "each of the even points has a voxel of its own, or shares the crowd's"
    )
    assert (thin_randomly(cloud, 700).rows >= CROWD).sum() < 0.2 * EVEN
    assert len(thin_by_voxels(cloud, CROWD + EVEN).rows) == CROWD + EVEN


def test_counting_a_part_of_the_voxels_leaves_as_many(cloud, monkeypatch):
    exact = len(thin_by_voxels(cloud, 700).rows)
    monkeypatch.setattr(thinning, "EXACT", 100)
    found = thin_by_voxels(cloud, 700)
    assert 0.75 * exact < len(found.rows) <= 700 and (np.diff(found.rows) > 0).all()
    assert found.columns["row"].tolist() == found.rows.tolist()


@pytest.mark.parametrize("values", [1, 3, 2000, 2**62])
def test_the_first_of_each_number_is_found_without_sorting(values):
    keys = np.random.default_rng(0).integers(0, values, 5000)
    wanted = np.sort(np.unique(keys, return_index=True)[1])
    np.testing.assert_array_equal(thinning.first_of_each(keys), wanted)
    assert thinning.first_of_each(keys[:0]).tolist() == []


def test_each_voxel_has_its_own_key(tmp_path):
    centres = np.stack(np.meshgrid(*map(np.arange, (2, 5, 7))), -1).reshape(-1, 3).T + 0.5
    voxels = thinning._Voxels(tmp_path / "a.ply", 10)
    voxels._origin = np.zeros(3)
    assert len(np.unique(voxels._keys(centres, 1.0))) == 2 * 5 * 7


@pytest.mark.parametrize("place", [0, 17, 2999])
@pytest.mark.parametrize("far", [(0, 0, 0), (0, 1e7, 0), (3e38, -3e38, 3e38)])
@pytest.mark.parametrize("count", [3000, 1000])  # more than are kept while reading, and fewer
def test_a_far_point_costs_no_others(tmp_path, far, place, count):
    coord = np.random.default_rng(0).random((count, 3)) * [30, 30, 0.1] + [4.5e5, 5.4e6, 0]
    most, found = 400, []
    for _ in range(2):
        np.save(tmp_path / "a.npy", coord)
        found.append(thin_by_voxels(tmp_path / "a.npy", most).rows)
        coord[min(place, count - 1)] = far
    clean, with_far = map(len, found)
    assert 0.9 * most < clean <= most and 0.9 * most < with_far <= most
    assert min(place, count - 1) in found[1]


def test_voxels_of_far_points_have_keys_of_their_own(tmp_path):
    voxels = thinning._Voxels(tmp_path / "a.ply", 10)
    voxels._origin = np.zeros(3)
    axis = np.array([-3e38, -1e30, -2, 0, 0.5, 1, 1e19, 3e38])
    xyz = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3).T
    keys = voxels._keys(xyz, 1.0)
    assert len(np.unique(keys)) == 7**3, "0 and 0.5 share a voxel"
    same = (np.floor(xyz)[:, :, None] == np.floor(xyz)[:, None]).all(0)
    np.testing.assert_array_equal(keys[:, None] == keys, same)
    line = np.stack([[-(2.0**60), 1, 2], np.zeros(3), np.zeros(3)])  # 2**60 and 1 more are no float
    assert len(np.unique(voxels._keys(line, 1.0))) == 3


def test_one_place_of_many_points_is_one_voxel(tmp_path):
    write_cloud(tmp_path / "a.ply", Scene(coord=np.ones((500, 3), np.float32)))
    assert thin_by_voxels(tmp_path / "a.ply", 10).rows.tolist() == [0]


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(CloudFileError, match="none.ply"):
        thin_randomly(tmp_path / "none.ply", 10)
