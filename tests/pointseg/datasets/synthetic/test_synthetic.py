"""Generated rooms: the same for the same seed, furnished, consistent with their primitives."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pointseg.datasets import DatasetError, open_dataset
from pointseg.datasets.synthetic.dataset import Synthetic
from pointseg.datasets.synthetic.furniture import CEILING, FLOOR, NAMES, WALL
from pointseg.datasets.synthetic.layout import build_room
from pointseg.datasets.synthetic.primitives import Panel, Primitive
from pointseg.datasets.synthetic.rooms import Room, sample_room


@pytest.fixture(scope="module")
def dataset():
    return Synthetic(points=20_000)


def test_scenes_are_what_they_promise(dataset):
    assert dataset.fields == {"color", "normal"} and dataset.classes.names == NAMES
    for split in dataset.splits():
        name = dataset.scenes(split)[0]
        scene = dataset.load(split, name)
        assert scene.name == name and len(scene) == 20_000
        assert set(scene.fields) == {"color", "normal", "segment", "instance"}
        assert 0 <= scene["color"].min() and scene["color"].max() <= 255
        np.testing.assert_allclose(np.linalg.norm(scene["normal"], axis=1), 1, atol=1e-5)
        assert -1 < scene["segment"].min() and scene["segment"].max() < len(NAMES)


def test_the_same_seed_gives_the_same_rooms(dataset):
    one, two = (
        dataset.load("val", "room1000003"),
        Synthetic(points=20_000).load("val", "room1000003"),
    )
    np.testing.assert_array_equal(one.coord, two.coord)
    for key in one.fields:
        np.testing.assert_array_equal(one[key], two[key])
    other = Synthetic(seed=1, points=20_000).load("val", "room1000003")
    assert not np.array_equal(one.coord, other.coord)
    assert not np.array_equal(one.coord, dataset.load("val", "room1000004").coord)


def test_splits_share_no_room(dataset):
    names = [name for split in dataset.splits() for name in dataset.scenes(split)]
    assert len(set(names)) == len(names) == 240


def test_every_class_is_seen_in_a_few_rooms(dataset):
    counts = sum(
        np.bincount(dataset.load("train", name)["segment"], minlength=len(NAMES))
        for name in dataset.scenes("train")[:8]
    )
    share = counts / counts.sum()
    assert share.min() > 0.002 and share.max() < 0.5


def test_floors_walls_and_ceilings_lie_where_they_must(dataset):
    for name in dataset.scenes("train")[:3]:
        room, scene = dataset.room("train", name), dataset.load("train", name)
        x, y, z = scene.coord.T
        label = scene["segment"]
        assert np.abs(z[label == FLOOR]).max() < 0.03
        assert np.abs(z[label == CEILING] - room.height).max() < 0.03
        gaps = np.abs(np.stack([x, room.width - x, y, room.depth - y]))
        assert gaps.min(0)[label == WALL].max() < 0.03
        # All is seen from inside: the walls' normals point to the middle.
        middle = np.array([room.width / 2, room.depth / 2, room.height / 2])
        shell = np.isin(label, (FLOOR, CEILING, WALL))
        assert (((middle - scene.coord) * scene["normal"]).sum(1)[shell] > 0).mean() > 0.99
        assert z.min() > -0.03 and z.max() < room.height + 0.03


def test_nothing_hidden_is_seen(dataset):
    room = dataset.room("train", "room0000002")
    scene = dataset.load("train", "room0000002")
    points = scene.coord.astype(np.float64)
    for primitive in room.primitives:
        if not isinstance(primitive.shape, Panel):
            assert not primitive.shape.contains(points, 0.02).any()


def test_objects_hold_one_class_each(dataset):
    scene = dataset.load("train", "room0000001")
    for number in range(scene["instance"].max() + 1):
        assert len(np.unique(scene["segment"][scene["instance"] == number])) <= 1
    assert set(np.unique(scene["segment"][scene["instance"] == -1])) == {FLOOR, CEILING, WALL}


def test_furniture_stands_in_the_room_and_not_in_other_furniture():
    for seed in range(5):
        room = build_room(np.random.default_rng(seed))
        assert 3 <= room.width <= 6 and 2.4 <= room.height <= 3
        for primitive in room.primitives:
            points, _ = primitive.shape.sample(50, np.random.default_rng(0))
            low, high = points.min(0), points.max(0)
            assert (low > -0.25).all() and (high[:2] < (room.width + 0.25, room.depth + 0.25)).all()
            assert high[2] < room.height + 0.05


def test_a_room_of_one_wall_by_hand():
    floor = Primitive(Panel((0, 0, 0), (2, 0, 0), (0, 2, 0)), FLOOR, (100, 100, 100))
    scene = sample_room(Room(2, 2, 2.5, (floor,)), 500, np.random.default_rng(0), name="bare")
    assert len(scene) <= 500 and scene.name == "bare" and set(scene["segment"]) == {FLOOR}
    assert abs(scene.coord[:, 2]).max() < 0.02
    assert 50 < scene["color"].mean() < 100  # half in shadow, never brighter than it is


def test_a_room_takes_little_time(dataset):
    start = time.perf_counter()
    for name in dataset.scenes("train")[:5]:
        dataset.load("train", name)
    assert time.perf_counter() - start < 10


def test_a_single_room_and_few_points():
    dataset = Synthetic(rooms=(1, 1, 1), points=3)
    assert len(dataset.load("train", "room0000000")) <= 3 and len(dataset.scenes("val")) == 1


@pytest.mark.parametrize("wrong", [{"rooms": (0, 1, 1)}, {"points": 0}, {"seed": -1}])
def test_no_rooms_and_no_points_are_refused(wrong):
    with pytest.raises(DatasetError, match="'rooms' and 'points' must be at least 1"):
        Synthetic(**wrong)


def test_unknown_splits_and_rooms_are_refused():
    dataset = open_dataset("synthetic")
    with pytest.raises(DatasetError, match="synthetic: has no split 'x'"):
        dataset.scenes("x")
    with pytest.raises(
        DatasetError, match="split 'train' has no scene 'room1000000' among its 200"
    ):
        dataset.load("train", "room1000000")
