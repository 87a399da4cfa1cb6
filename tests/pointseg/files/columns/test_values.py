"""Values of columns in the form that scenes have."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointseg.files.columns.to_scene import scene_of
from pointseg.files.columns.values import to_labels, to_normal, to_returns

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
