"""Transforms that keep some points of a scene."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.geometry.voxels import voxelize
from pointseg.scene import Scene
from pointseg.transforms import DropOutside, GridSample, RandomDrop, SphereCrop
from tests.pointseg.transforms.rooms import check_fields_stayed_together, room

ALL = [
    RandomDrop(fraction=0.2),
    GridSample(voxel_m=0.5),
    SphereCrop(max_points=100),
    SphereCrop(fraction=0.6),
    DropOutside(box_m=(11, -6, 0, 13, -5, 2)),
]


@pytest.mark.parametrize("step", ALL, ids=lambda step: repr(step)[:20])
def test_all_fields_are_selected_together_and_nothing_moves(step):
    whole = room()
    part = step(whole, np.random.default_rng(0))
    assert 0 < len(part) < len(whole) and len(set(part["row"])) == len(part)
    check_fields_stayed_together(part, whole)
    np.testing.assert_array_equal(part.coord, part["first"])
    again = step(whole, np.random.default_rng(0))
    np.testing.assert_array_equal(part["row"], again["row"])


def test_random_drop():
    whole = room()
    assert len(RandomDrop(fraction=0.2)(whole, np.random.default_rng(0))) == 320
    assert len(RandomDrop(fraction=0.99)(room(3), np.random.default_rng(0))) == 1
    assert RandomDrop(fraction=0.2, probability=0.0)(whole, np.random.default_rng(0)) is whole
    rng, step = np.random.default_rng(0), RandomDrop(fraction=0.2, probability=0.2)
    assert 150 < sum(len(step(whole, rng)) < 400 for _ in range(1000)) < 250


def test_grid_sample_has_one_point_of_each_voxel():
    whole = room()
    part = GridSample(voxel_m=0.5)(whole, np.random.default_rng(0))
    voxels = voxelize(whole.coord, 0.5)
    np.testing.assert_array_equal(voxels.inverse[part["row"]], np.arange(len(voxels)))
    np.testing.assert_array_equal(part["grid_coord"], voxels.grid_coord)


def test_sphere_crop_by_hand():
    line = Scene(np.array([[0, 0, 0], [9, 0, 0], [1, 0, 0], [8, 0, 0]], np.float32))
    drawn = {
        tuple(SphereCrop(max_points=2)(line, np.random.default_rng(s)).coord[:, 0])
        for s in range(20)
    }
    assert drawn == {(0, 1), (9, 8)}  # two neighbours, in the order they came


def test_sphere_crop_is_a_sphere_around_one_of_its_points():
    whole = room()
    part = SphereCrop(max_points=100)(whole, np.random.default_rng(5))
    away = np.linalg.norm(whole.coord[:, None] - part.coord[None], axis=2)  # (N, centres)
    kept = np.isin(np.arange(400), part["row"])
    assert (away[kept].max(0) <= away[~kept].min(0)).any()


def test_sphere_crop_leaves_what_is_small_enough():
    whole, rng = room(), np.random.default_rng(0)
    for step in (SphereCrop(), SphereCrop(max_points=400), SphereCrop(max_points=None)):
        assert step(whole, rng) is whole
    assert len(SphereCrop(fraction=0.6)(whole, rng)) == 240
    assert len(SphereCrop(fraction=0.6, max_points=50)(whole, rng)) == 50
    assert len(SphereCrop(fraction=0.1)(room(3), rng)) == 1


def test_drop_outside_keeps_the_faces():
    coord = np.array([[0, 0, 0], [1, 1, 1], [1.01, 0, 0], [0, -0.1, 0], [0.5] * 3], np.float32)
    part = DropOutside(box_m=(0, 0, 0, 1, 1, 1))(Scene(coord), np.random.default_rng(0))
    np.testing.assert_array_equal(part.coord, coord[[0, 1, 4]])


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: RandomDrop(fraction=1.0), "'fraction'"),
        (lambda: GridSample(voxel_m=0), "'voxel_m'"),
        (lambda: SphereCrop(max_points=0), "'max_points'"),
        (lambda: SphereCrop(fraction=0), "'fraction'"),
        (lambda: DropOutside(box_m=(0, 0, 0, 1, 0, 1)), "'box_m'"),
        (lambda: DropOutside(box_m=(0, 0, 1, 1)), "'box_m'"),
        (
            lambda: DropOutside(box_m=(0, 0, 0, 1, 1, 1))(room(), np.random.default_rng(0)),
            "must have points",
        ),
    ],
)
def test_what_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()
