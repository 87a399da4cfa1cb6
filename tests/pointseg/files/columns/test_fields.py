"""Columns and fields of scenes: which is recognised by what name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pointseg.files import CloudFileError
from pointseg.files.columns.to_scene import scene_of

PATH = Path("a.ply")


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
