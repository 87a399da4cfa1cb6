"""Leica's .ptx of several scans."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.files import (
    CloudFileError,
    check_labelled,
    in_pieces,
    read_cloud,
    read_columns,
    read_scaled,
    result_suffix,
    write_cloud,
    write_labelled,
)
from tests.pointseg.prediction.test_predict import model, spec_of  # noqa: F401

TURN = "0 1 0 0\n-1 0 0 0\n0 0 1 0\n{x} 20 30 1\n"  # (x, y, z) -> (-y + X, x + 20, z + 30)
SCAN = "{columns}\n{rows}\n1 2 3\n1 0 0\n0 1 0\n0 0 1\n" + TURN


def ptx(path, *scans, end="\n"):
    """A file of scans, each (x of its place, lines of points)."""
    text = ""
    for x, lines in scans:
        text += SCAN.format(columns=len(lines), rows=1, x=x) + "\n".join(lines) + "\n"
    path.write_text(text.rstrip("\n") + end)
    return path


ONE = (100, ["1 0 0 0.25 255 0 0", "0 0 0 0.5 0 0 0", "0 2 0.5 1 0 128 255"])
TWO = (1000, ["0 0 0 0.5", "3 4 5 0.75 9 8 7"])


@pytest.mark.parametrize("end", ["\n", "", "\n\n\r\n"])
def test_scans_are_moved_by_their_matrices_and_directions_without_return_are_counted(tmp_path, end):
    scene, scales = read_scaled(ptx(tmp_path / "a.ptx", ONE, TWO, end=end))
    assert (scene.coord + scene.origin).tolist() == [[100, 21, 30], [98, 20, 30.5], [996, 23, 35]]
    assert scene["color"].tolist() == [[255, 0, 0], [0, 128, 255], [9, 8, 7]]
    assert scene["strength"][:, 0].tolist() == [0.25, 1, 0.75]
    assert scene["scan"].tolist() == [0, 0, 1]
    assert scales.notes["coord"] == (
        "2 of 5 directions have no return (0, 0, 0); they were left out",
    )
    alone, scales = read_scaled(ptx(tmp_path / "b.ptx", (0, ["1 2 3 0.5", "4 5 6 0.25"])))
    assert "scan" not in alone and "color" not in alone and "coord" not in scales.notes


def test_results_are_ply_with_a_class_for_each_point_that_returned(tmp_path):
    source, target = ptx(tmp_path / "a.ptx", ONE, TWO), tmp_path / "b.ply"
    assert result_suffix(source) == ".ply"
    with pytest.raises(CloudFileError, match=r"b\.ptx: must end in \.ply"):
        check_labelled(source, tmp_path / "b.ptx")
    colors = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    more = {"codes": (2, 6), "heights": np.array([0, 1, np.nan], np.float32), "legend": ("a", "b")}
    write_labelled(source, target, np.array([1, 0, -1]), colors=colors, **more)
    assert b"comment class 1 b\n" in target.read_bytes()
    columns = read_columns(target)
    np.testing.assert_array_equal(columns["height_above_ground"], more["heights"])
    assert columns["classification"].tolist() == [6, 2, 1]
    before, after = read_cloud(source), read_cloud(target)
    np.testing.assert_array_equal(after.coord, before.coord)
    assert after["class"].tolist() == after["segment"].tolist() == [1, 0, -1]
    assert after["color"].tolist() == [[4, 5, 6], [1, 2, 3], [128, 128, 128]]
    assert after["scan"].tolist() == [0, 0, 1]
    for refused in (lambda: write_cloud(tmp_path / "c.ptx", before), lambda: in_pieces(source)):
        with pytest.raises(CloudFileError):
            refused()


def test_prediction_says_what_was_left_out(tmp_path, model):  # noqa: F811
    from pointseg.prediction.predict import predict

    spec = spec_of(tmp_path, ptx(tmp_path / "a.ptx", ONE), check_scale=False, pictures=False)
    (result,) = predict(spec)
    assert result.status == "done", result.reason
    assert result.target == str(tmp_path / "out" / "a.ply") and result.points == 2
    assert "1 of 3 directions have no return" in result.notes[0]
    assert predict(spec)[0].status == "kept"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("3\n1\n", "3\n", "must hold 1, 1, 3"),
        ("3\n1\n", "99999\n99999\n", "is cut off"),
        ("3\n1\n", "4\n1\n", "is cut off or malformed|must hold"),
        ("3\n1\n", "-3\n1\n", "must hold 1, 1, 3"),
        ("3\n1\n", "3.5\n1\n", "must hold 1, 1, 3"),
        ("0 1 0 0\n-1", "0 1 0 7\n-1", "must end in 0, 0, 0, 1"),
        ("0 1 0 0\n-1", "0 nan 0 0\n-1", "must end in 0, 0, 0, 1"),
        ("0.25 255 0 0", "0.25 255 0", "scan 1 is malformed"),
        ("0.25 255 0 0", "0.25 x 0 0", "scan 1 is malformed"),
    ],
)
def test_malformed_scans_are_refused(tmp_path, old, new, problem):
    path = ptx(tmp_path / "a.ptx", ONE)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(CloudFileError, match=rf"a\.ptx: .*({problem})"):
        read_cloud(path)


def test_scans_of_different_fields_and_empty_files_are_refused(tmp_path):
    path = ptx(tmp_path / "a.ptx", ONE, (0, ["1 2 3 0.5"]))
    with pytest.raises(CloudFileError, match="with colours and without"):
        read_cloud(path)
    path.write_text("")
    with pytest.raises(CloudFileError, match="is empty"):
        read_cloud(path)
