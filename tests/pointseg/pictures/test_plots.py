"""Confusion matrices and curves as files."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from pointseg.pictures.confusion import write_confusion
from pointseg.pictures.training_curves import draw_curves


def test_the_table_has_counts_and_shares(tmp_path):
    matrix = np.array([[3, 1], [0, 0]])
    write_confusion(matrix, ["wall", "a, b"], tmp_path / "c.png", tmp_path / "c.csv")
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["labelled", "points", "wall", "a, b", "wall (share)", "a, b (share)"],
        ["wall", "4", "3", "1", "0.750000", "0.250000"],
        ["a, b", "0", "0", "0", "", ""],
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.csv", "c.png"]


@pytest.mark.parametrize("classes", [1, 20, 40, 120])
def test_matrices_of_any_size_are_drawn(tmp_path, classes):
    matrix = np.random.default_rng(0).integers(0, 2_000_000, (classes, classes))
    names = ["$a$b$", *(f"class {k}" for k in range(1, classes))]
    write_confusion(matrix, names, tmp_path / "c.png", tmp_path / "c.csv")
    with Image.open(tmp_path / "c.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10


def test_a_matrix_that_does_not_fit_the_names_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'matrix'"):
        write_confusion(np.eye(3, dtype=int), ["a", "b"], tmp_path / "c.png", tmp_path / "c.csv")
    assert not list(tmp_path.iterdir())


def test_curves_from_numbers_or_their_text_with_gaps(tmp_path):
    rows = [{"step": 10 * k, "loss": 1 / k, "lr": "0.001", "lovasz": ""} for k in range(1, 200)]
    rows[50] |= {"val_voxel_miou": "0.5", "val_voxel_accuracy": 0.7}
    rows[60]["loss"] = float("nan")
    draw_curves(rows, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert np.asarray(picture).std() > 10
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


@pytest.mark.parametrize("rows", [[], [{"step": 0}], [{"step": 1, "loss": 0.0}]])
def test_a_run_that_has_hardly_begun_is_drawn_too(tmp_path, rows):
    draw_curves(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()
