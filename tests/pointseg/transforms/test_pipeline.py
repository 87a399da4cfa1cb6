"""The rows of transforms of training and validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pointseg.geometry.voxels import voxelize
from pointseg.scene import Scene
from pointseg.transforms import Augmentation, Compose, evaluation, indoor, outdoor
from tests.pointseg.transforms.rooms import check_fields_stayed_together, room

NONE = Augmentation.none()


def run(steps, scene, seed=0):
    return Compose(steps)(scene, np.random.default_rng(seed))


def test_the_order_is_that_of_the_published_configurations():
    names = [
        type(step).__name__
        for step in indoor(Augmentation(), voxel_m=0.1, max_points=100, has_color=True)
    ]
    assert names == [
        "CenterShift", "RandomDrop", "RandomRotate", "RandomRotate", "RandomRotate", "RandomScale",
        "RandomFlip", "RandomJitter", "ElasticDistortion", "AutoContrast", "ColorShift",
        "ColorJitter", "GridSample", "SphereCrop", "SphereCrop", "CenterShift",
    ]  # fmt: skip
    steps = outdoor(Augmentation(), voxel_m=0.1, clip_box_m=(-1, -1, -1, 1, 1, 1))
    names = [type(step).__name__ for step in steps]
    assert names == [
        "RandomRotate", "ClampToBox", "RandomScale", "RandomFlip", "RandomJitter", "GridSample",
        "SphereCrop",
    ]  # fmt: skip


@pytest.mark.parametrize("color", [True, False])
def test_indoor(color):
    whole = room(3000, color=color)
    steps = indoor(Augmentation(), voxel_m=0.1, max_points=500, has_color=color)
    for seed in range(5):
        made = run(steps, whole, seed)
        assert len(made) == 500
        check_fields_stayed_together(made, whole)
        assert len(np.unique(made["grid_coord"], axis=0)) == 500
        np.testing.assert_allclose(
            made.coord[:, :2].min(0) + made.coord[:, :2].max(0), 0, atol=1e-5
        )
        np.testing.assert_array_equal(made.coord, run(steps, whole, seed).coord)
    assert (run(steps, whole, 1).coord != run(steps, whole, 2).coord).any()


def test_indoor_without_augmentation_is_evaluation():
    whole = room(3000)
    one = run(indoor(NONE, voxel_m=0.1, max_points=None, has_color=True), whole)
    other = run(evaluation(voxel_m=0.1, center=True), whole)
    np.testing.assert_array_equal(one["grid_coord"], other["grid_coord"])
    assert one.coord[:, 2].min() >= 0
    np.testing.assert_array_equal(one["color"], whole["color"][one["row"]])
    np.testing.assert_array_equal(one["normal"], whole["normal"][one["row"]])


def test_sphere_crops_of_a_share_and_of_a_number():
    whole = room(1000)
    crop = dict(voxel_m=0.001, has_color=True, sphere_fraction=0.6)
    assert len(run(indoor(NONE, max_points=2000, **crop), whole)) == 600
    assert len(run(indoor(NONE, max_points=100, **crop), whole)) == 100
    assert len(run(indoor(NONE, max_points=None, **crop), whole)) == 600


def test_outdoor():
    whole = room(3000, color=False)
    made = run(outdoor(Augmentation.lidar(), voxel_m=0.1, max_points=700), whole)
    assert len(made) == 700
    check_fields_stayed_together(made, whole)
    still = run(outdoor(NONE, voxel_m=0.1), whole)
    np.testing.assert_array_equal(still.coord, still["first"])  # around the sensor, as before


@pytest.mark.parametrize(
    "steps",
    [
        lambda **box: outdoor(NONE, voxel_m=0.1, **box),
        lambda **box: evaluation(voxel_m=0.1, center=False, **box),
    ],
)
def test_points_outside_a_box_are_moved_or_dropped(steps):
    coord = np.array([[0, 0, 0], [30, 0, 0], [50, 1, 0], [0, 0, 9]], np.float32)
    box = (-35.2, -35.2, -4.0, 35.2, 35.2, 2.0)
    moved = run(steps(clip_box_m=box), Scene(coord))
    np.testing.assert_allclose(moved.coord, [[0, 0, 0], [0, 0, 2], [30, 0, 0], [35.2, 1, 0]])
    kept = run(steps(clip_box_m=box, drop_outside=True), Scene(coord))
    np.testing.assert_array_equal(kept.coord, coord[:2])


def test_evaluation_leaves_all_voxels_and_colours():
    whole = room(3000)
    made = run(evaluation(voxel_m=0.2, center=False), whole)
    np.testing.assert_array_equal(made["grid_coord"], voxelize(whole.coord, 0.2).grid_coord)
    np.testing.assert_array_equal(made["color"], whole["color"][made["row"]])
    np.testing.assert_array_equal(made.coord, made["first"])


def test_only_augmentation_makes_training_scenes_differ():
    whole = room(300)
    still = indoor(NONE, voxel_m=1e-4, max_points=None, has_color=True)  # every point its own voxel
    np.testing.assert_array_equal(run(still, whole, 1).coord, run(still, whole, 2).coord)
    moving = indoor(replace(NONE, jitter_m=0.01), voxel_m=1e-4, max_points=None, has_color=True)
    one, other = (run(moving, whole, seed) for seed in (1, 2))
    assert (one.coord[np.argsort(one["row"])] != other.coord[np.argsort(other["row"])]).any()
