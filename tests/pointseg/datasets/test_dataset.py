"""Class lists, colours, and datasets by name."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.datasets import DATASETS, DatasetError, open_dataset
from pointseg.datasets.classes import ClassList, distinct_color, distinct_colors
from pointseg.datasets.named_scenes import require_scene, require_split


def test_a_class_list():
    classes = ClassList(("a", "b"), distinct_colors(2), {"head": (0,)})
    assert len(classes) == 2 and hash(classes) == hash(ClassList(("a", "b"), distinct_colors(2)))
    assert classes == ClassList(("a", "b"), np.zeros((2, 3), np.uint8), {"head": (0,)})
    assert classes != ClassList(("a", "c"), distinct_colors(2))


@pytest.mark.parametrize(
    ("names", "colors", "groups", "message"),
    [
        ((), distinct_colors(0), {}, "'names' must be distinct, at least one"),
        (("a", "a"), distinct_colors(2), {}, "'names' must be distinct"),
        (("a", "b"), distinct_colors(3), {}, r"'colors' must be \(2, 3\) uint8, got \(3, 3\)"),
        (("a",), np.zeros((1, 3)), {}, r"'colors' must be \(1, 3\) uint8, got .* float64"),
        (("a",), distinct_colors(1), {"g": (0, 1)}, r"group 'g' must hold indices of the 1 classes, got \[1\]"),
    ],
)  # fmt: skip
def test_class_lists_that_cannot_be(names, colors, groups, message):
    with pytest.raises(DatasetError, match=message):
        ClassList(names, colors, groups)


@pytest.mark.parametrize("count", [1, 20, 200])
def test_colours_differ_and_stay(count):
    colors = distinct_colors(count)
    assert colors.shape == (count, 3) and len(np.unique(colors, axis=0)) == count
    np.testing.assert_array_equal(colors[: count // 2], distinct_colors(count // 2))


def test_a_colour_is_found_by_its_index_alone():
    assert [distinct_color(k) for k in range(200)] == list(
        map(tuple, distinct_colors(200).tolist())
    )
    first = [(80, 158, 230), (139, 166, 25), (232, 145, 242)]
    assert [distinct_color(k) for k in range(3)] == first, "as they always were"
    assert len(set(map(distinct_color, range(2**31 - 50, 2**31)))) > 40


def test_unknown_splits_and_scenes():
    with pytest.raises(DatasetError, match="rooms: has no split 'x', only train, val"):
        require_split("rooms", "x", ("train", "val"))
    with pytest.raises(DatasetError, match="rooms: split 'val' has no scene 'x' among its 2"):
        require_scene("rooms", "val", "x", ("a", "b"))


def test_the_synthetic_dataset_needs_no_folder():
    dataset = open_dataset("synthetic")
    assert dataset.name == "synthetic" and dataset.splits() == ("train", "val", "test")


@pytest.mark.parametrize(
    ("name", "root", "config"),
    [
        ("kitti", None, None),
        ("synthetic", ".", None),
        *((name, None, None) for name in DATASETS if name != "synthetic"),
        *((name, "nowhere", None) for name in DATASETS if name != "synthetic"),
        *((name, "a_file", None) for name in DATASETS if name != "synthetic"),
        *((name, ".", "a.yaml") for name in DATASETS if name != "folder"),
    ],
)
def test_what_cannot_be_opened_is_named(tmp_path, name, root, config):
    (tmp_path / "a_file").touch()
    given = [None if each is None else tmp_path / each for each in (root, config)]
    with pytest.raises(DatasetError, match=f"dataset '{name}'") as caught:
        open_dataset(name, given[0], config=given[1])
    if root == "nowhere":
        assert "nowhere" in str(caught.value)
        assert (f"pointseg-prepare --dataset {name} " in str(caught.value)) == (name != "folder")
