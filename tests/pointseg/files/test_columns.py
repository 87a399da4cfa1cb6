"""Columns and fields: what is recognised, into which range it is brought."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pointseg.files import CloudFileError
from pointseg.files.columns import storable
from pointseg.files.field_values import to_labels, to_normal, to_returns
from pointseg.files.file_scene import scene_of
from pointseg.files.labels import Labels

PATH = Path("a.ply")


def test_echoes():
    found = to_returns(np.array([1, 1, 2, 3, 0, 2], "u1"), np.array([1, 2, 2, 4, 0, 0], "u1"))
    wanted = [[1, 1], [0.5, 0.5], [1, 0.5], [0.75, 0.25], [1, 1], [1, 0.5]]
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == np.float32
    columns = {"xyz": np.zeros((2, 3)), "return_number": np.array([1, 2], "u1")}
    assert "returns" not in scene_of(PATH, columns, name="a").fields
    columns["number_of_returns"] = np.array([2, 2], "u1")
    assert scene_of(PATH, columns, name="a")["returns"].tolist() == [[0.5, 0.5], [1, 0.5]]


def test_normals():
    raw = np.array([[0, 0, 2], [3, 4, 0], [0, 0, 0], [np.nan, 1, 0], [3e38, 3e38, 0]])
    root = np.sqrt(0.5)
    wanted = [[0, 0, 1], [0.6, 0.8, 0], [0, 0, 0], [0, 1, 0], [root, root, 0]]
    np.testing.assert_allclose(to_normal(raw), wanted, atol=1e-7)
    assert to_normal(raw).dtype == np.float32


def test_labels():
    assert to_labels(np.array([3.0, np.nan, -1])).tolist() == [3, -1, -1]  # type: ignore[union-attr]
    assert to_labels(np.array([3, 250], np.uint8)).dtype == np.int32  # type: ignore[union-attr]
    assert to_labels(np.array([], np.float32)).tolist() == []  # type: ignore[union-attr]
    for wrong in ([0.5], [np.inf], [1e12], [2**40], ["wall"]):
        assert to_labels(np.array(wrong)) is None


def test_names_are_recognised_in_any_writing():
    columns = {
        name: np.arange(2.0) for name in ("X", "y", "Z", "Red", "GREEN", "blue", "scalar_Label")
    }
    scene = scene_of(PATH, columns, name="a")
    assert set(scene.fields) == {"color", "segment", "scalar_Label"}


def test_of_several_labels_ours_count_first():
    columns = {name: np.full(2, number) for number, name in enumerate(
        ("x", "y", "z", "classification", "label", "class", "pointseg_class")
    )}  # fmt: skip
    assert scene_of(PATH, columns, name="a")["segment"].tolist() == [6, 6]
    del columns["pointseg_class"]
    assert scene_of(PATH, columns, name="a")["segment"].tolist() == [5, 5]


def test_fields_that_only_share_a_name_are_kept_under_another():
    columns = {name: np.arange(2.0) for name in ("x", "y", "z", "color", "grid_coord")}
    columns["segment"] = np.array([0.5, 1])
    scene = scene_of(PATH, columns, name="a")
    assert set(scene.fields) == {"file_color", "file_grid_coord", "file_segment"}


def test_positions_must_be_there_and_be_numbers():
    with pytest.raises(CloudFileError, match=r"a\.ply.*x, y and z"):
        scene_of(PATH, {}, name="a")
    with pytest.raises(CloudFileError, match=r"a\.ply.*numbers"):
        scene_of(PATH, {"xyz": np.full((2, 3), "a")}, name="a")


def field_in(names, field=None):
    return Labels(np.zeros(1, int), field=field).field_in(PATH, names)


def test_the_field_of_classes():
    assert field_in(["x", "y"]) == "class"
    assert field_in(["x", "class"]) == "pointseg_class"
    assert field_in(["x", "class"], "class") == "class"
    for name in ("Class", "scalar_class", "scalar_Class"):  # which readers take for it
        assert field_in(["x", name]) == "pointseg_class"
    for name in ("pointseg_class", "scalar_pointseg_class"):  # which readers take first
        assert field_in(["x", name, "class"]) == name
        assert field_in(["x", name]) == name


def test_points_without_a_class_are_grey():
    colors = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    segment = np.array([1, -1, 0, 2])
    painted = Labels(segment, colors).paint(segment)
    assert painted.tolist() == [[4, 5, 6], [128, 128, 128], [1, 2, 3], [128, 128, 128]]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([True]), "u1"),
        (np.array([1], np.float16), "f4"),
        (np.array([1.0]), "f8"),
        (np.array([1], np.int16), "i2"),
        (np.array([1], np.int64), "i4"),
        (np.array([2**40]), "f8"),
        (np.array([], np.uint64), "i4"),
    ],
)
def test_types_that_files_hold(values, kind):
    assert storable(values).dtype == np.dtype(kind)
