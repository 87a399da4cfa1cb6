"""Rooms with textures: images agree with the clouds, and the points do not give the textures away."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
import torch

from tests import ROOT

sys.path.insert(0, str(ROOT / "examples" / "benchmarks"))

import ditr_data  # noqa: E402
import textured_rooms as rooms  # noqa: E402

from pointseg.datasets.errors import DatasetError  # noqa: E402
from pointseg.images.projection import compute_visibility  # noqa: E402
from pointseg.images.visibility import VisibilityConfig


@pytest.fixture(scope="module")
def data():
    return rooms.TexturedRooms(rooms=(2, 1, 1), views=3, points=4000)


def test_rooms_are_reproducible(data):
    name, other = data.scenes("train")
    first = data.load("train", name), data.shots("train", name)
    rooms._room.cache_clear()
    again = data.load("train", name), data.shots("train", name)
    np.testing.assert_array_equal(first[0].coord, again[0].coord)
    for one, two in zip(first[1], again[1], strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.depth, two.depth)
    assert len(data.load("train", other)) != len(first[0])
    assert not {n for s in data.splits() for n in data.scenes(s)} - {
        "room0000000", "room0000001", "room1000000", "room2000000",
    }  # fmt: skip


def test_images_show_points_with_their_class(data):
    name = data.scenes("train")[0]
    scene, frames = data.load("train", name), data.frames("train", name)
    found = compute_visibility(scene, frames, VisibilityConfig(depth_tolerance_m=0.05), rooms.SIZE)
    mask = found["image_mask"]
    assert mask.any(1).mean() > 0.85  # the rest are visible in no image
    for view, shot in enumerate(data.shots("train", name)):
        u, v = found["image_coord"][mask[:, view], view].astype(int).T
        agree = shot.segment[v, u] == scene["segment"][mask[:, view]]
        assert agree.mean() > 0.97  # all but pixels at edges


def test_depth_maps_agree_with_the_shapes(data):
    name = data.scenes("val")[0]
    shot = data.shots("val", name)[0]
    points = shot.camera.unproject(torch.from_numpy(shot.depth)).numpy()
    width, depth, height = np.ptp(data.load("val", name).coord, axis=0)
    known = shot.depth > 0
    assert known.mean() > 0.98
    assert (points[known] > -0.3).all()
    assert (points[known] < np.array([width, depth, height]) + 0.5).all()
    floor = np.isin(shot.segment, [rooms.NAMES.index(n) for n in ("planks", "carpet")])
    assert not floor.any() or np.abs(points[floor][:, 2]).max() < 0.1


def test_frames_can_be_pickled_and_have_keys(data):
    name = data.scenes("test")[0]
    frames = data.frames("test", name)
    assert len({frame.image.key() for frame in frames}) == 3
    copied = pickle.loads(pickle.dumps(frames[1]))
    np.testing.assert_array_equal(copied.read_image(), frames[1].read_image())
    assert copied.read_depth().dtype == np.float32
    assert copied.read_image().shape == (*rooms.SIZE, 3)


def test_colours_of_points_do_not_depend_on_the_texture():
    """Colours of planks and carpet, plaster and brick, wood and stone: the same distribution."""
    data = rooms.TexturedRooms(rooms=(12, 1, 1), views=1, points=3000)
    found: dict[int, list[float]] = {}
    for name in data.scenes("train"):
        scene = data.load("train", name)
        for label in np.unique(scene["segment"]):
            color = scene["color"][scene["segment"] == label]
            found.setdefault(label, []).append(float(color.std(0).mean()))
    for one, two in zip(rooms.TEXTURE_ONLY[::2], rooms.TEXTURE_ONLY[1::2], strict=True):
        spreads = [np.median(found[rooms.NAMES.index(name)]) for name in (one, two)]
        assert max(spreads) < 2 * min(spreads)


@pytest.mark.parametrize("name", rooms.NAMES)
def test_textures_are_balanced_and_finer_than_three_periods(name):
    s, t = np.random.default_rng(0).uniform(0, 60, (2, 200_000))
    values = rooms.TEXTURES[name](s, t)
    assert abs(values.mean()) < 0.12
    assert np.abs(values).max() <= 2
    if name != "ceiling":
        assert 0.4 < values.std() < 1.1
        cell = np.floor(s / 3) * 20 + np.floor(t / 3)
        means = np.bincount(cell.astype(int), values) / np.bincount(cell.astype(int))
        assert means.std() < 0.35 * values.std()


def test_impossible_arguments_are_refused(data):
    with pytest.raises(DatasetError, match="'rooms', 'views', 'points' must be at least 1"):
        rooms.TexturedRooms(views=0)
    with pytest.raises(DatasetError, match="no scene 'x'"):
        data.frames("val", "x")
    with pytest.raises(DatasetError, match="no split 'x'"):
        data.scenes("x")


def test_labelled_rooms_contain_all_classes():
    data = rooms.TexturedRooms(rooms=(8, 1, 1), views=1, points=1500)
    few = ditr_data.few_labels(data, 3, seed=1)
    assert len(set(few.scenes("train"))) == 3
    assert set(few.scenes("train")) < set(data.scenes("train"))
    assert few.scenes("test") == data.scenes("test")
    assert few.scenes("train") == ditr_data.few_labels(data, 3, seed=1).scenes("train")

    def classes(names):
        return {label for name in names for label in data.load("train", name)["segment"].tolist()}

    missing = classes(data.scenes("train")) - classes(few.scenes("train"))
    assert len(missing) <= 1  # three of eight rooms may not have all between them
