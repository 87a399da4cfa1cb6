"""Class lists, colours, and datasets by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dinomed3d.runtime.errors import UserError
from pointseg.datasets import DATASETS, ClassList, DatasetError, open_dataset
from pointseg.datasets.dataset import distinct_colors, require_scene, require_split


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


def test_unknown_splits_and_scenes():
    with pytest.raises(DatasetError, match="rooms: there is no split 'x'; there are: train, val"):
        require_split("rooms", "x", ("train", "val"))
    with pytest.raises(DatasetError, match="rooms: split 'val' has no scene 'x' among its 2"):
        require_scene("rooms", "val", "x", ("a", "b"))


def test_the_embedded_dataset():
    dataset = open_dataset("synthetic")
    assert dataset.name == "synthetic" and dataset.splits() == ("train", "val", "test")
    with pytest.raises(
        DatasetError, match="'synthetic': is generated on the fly and takes no folder"
    ):
        open_dataset("synthetic", Path("."))


def test_an_unknown_name_is_refused():
    with pytest.raises(
        UserError, match="dataset 'kitti': unknown; there are: synthetic, folder, scannet"
    ):
        open_dataset("kitti")


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "synthetic"])
def test_a_missing_root_says_what_to_do(tmp_path, name):
    hint = (
        "dataset.yaml"
        if name == "folder"
        else f"pointseg-prepare --dataset {name} --source DOWNLOADED --out PREPARED"
    )
    with pytest.raises(
        DatasetError, match=f"'{name}': --root must name .*none was given.*"
    ) as caught:
        open_dataset(name)
    assert hint in str(caught.value)
    with pytest.raises(DatasetError, match="nowhere is not there") as caught:
        open_dataset(name, tmp_path / "nowhere")
    assert hint in str(caught.value)
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="file is a file"):
        open_dataset(name, tmp_path / "file")


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "folder"])
def test_only_a_folder_has_a_description(tmp_path, name):
    with pytest.raises(DatasetError, match=f"'{name}': has no description to give"):
        open_dataset(name, tmp_path, config=tmp_path / "a.yaml")
