"""Fragments: samples with one point per voxel, which together hold every point."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.geometry.fragments import Fragments
from pointseg.geometry.voxels import voxel_downsample, voxelize
from pointseg.scene import Scene


def fragments(coord, size, limit=None):
    return Fragments(voxelize(coord, size), limit=limit)


def test_all_points_in_one_voxel():
    assert [part.tolist() for part in fragments(np.zeros((1, 3)), 0.1)] == [[0]]
    parts = fragments(np.zeros((5, 3), np.float32), 0.1)
    assert [part.tolist() for part in parts] == [[0], [1], [2], [3], [4]]


def test_fragments_by_hand():
    coord = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]], np.float32)
    parts = fragments(coord, 1.0)  # three points in the first voxel, two in the second
    assert [part.tolist() for part in parts] == [[0, 1], [2, 4], [3, 1]]
    assert parts[-1].tolist() == [3, 1] and [p.tolist() for p in parts[1:]] == [[2, 4], [3, 1]]
    assert parts.representative_index.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError):
        parts[3]


def test_fragments_hold_every_point_and_one_per_voxel():
    coord = np.random.default_rng(0).random((500, 3)).astype(np.float32) * 2 - 1
    voxels, parts = voxelize(coord, 0.4), fragments(coord, 0.4)
    assert len(parts) == voxels.counts.max()
    for part in parts:
        np.testing.assert_array_equal(voxels.inverse[part], np.arange(len(voxels)))
    assert set(np.concatenate(list(parts))) == set(range(500))


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_with_a_limit_every_point_has_scores_of_its_own_voxel(limit):
    coord = np.random.default_rng(0).random((500, 3)).astype(np.float32) * 2 - 1
    voxels, parts = voxelize(coord, 0.4), fragments(coord, 0.4, limit=limit)
    assert len(parts) == min(limit, voxels.counts.max())
    predicted = set(np.concatenate(list(parts)))
    index = parts.representative_index
    assert set(index) == predicted
    np.testing.assert_array_equal(voxels.inverse[index], voxels.inverse)
    mine = np.array(sorted(predicted))
    np.testing.assert_array_equal(index[mine], mine)


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="'limit' must be >= 1"):
        fragments(np.zeros((5, 3), np.float32), 0.5, limit=0)


def test_missing_returns_at_the_origin_do_not_ask_for_a_pass_each(shared):
    """A real scan with 53,000 of its points at the origin."""
    raw = np.fromfile(shared / "data/points/rellis3d/000104.bin", np.float32).reshape(-1, 4)
    whole = Scene(np.ascontiguousarray(raw[:, :3]), {})
    parts = fragments(whole.coord, 0.05)
    assert len(parts) > 50_000  # made when asked for: this takes no memory
    assert len(fragments(whole.coord, 0.05, limit=8)) == 8
    sampled, inverse = voxel_downsample(whole, 0.01)
    assert len(fragments(sampled.coord, 0.05)) < 50
    assert (np.abs(sampled.coord[inverse] - whole.coord) < 0.01 + 1e-5).all()
