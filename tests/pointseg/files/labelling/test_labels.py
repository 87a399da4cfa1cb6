"""What a labelled copy gets: the name of its field of classes, their colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointseg.files.labelling.labels import Labels

PATH = Path("a.ply")


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
