"""Files of scanners: .ptx of several scans, E57, and text with Semantic3D's labels next to it."""

from __future__ import annotations

import struct
import sys
from types import SimpleNamespace

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
from pointseg.files.e57 import read_e57
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


@pytest.mark.parametrize("name", ["a.txt", "a.xyz"])
def test_labels_of_semantic3d_stand_next_to_the_text(tmp_path, name):
    (tmp_path / name).write_text("1 2 3 -5 9 8 7\n4 5 6 20 1 2 3\n")
    (tmp_path / "a.labels").write_text("0\n8\n")
    scene = read_cloud(tmp_path / name)
    assert scene["segment"].tolist() == scene["label"].tolist() == [0, 8]
    write_labelled(tmp_path / name, tmp_path / f"b{name}", np.array([3, 4]))
    assert read_cloud(tmp_path / f"b{name}")["segment"].tolist() == [3, 4]
    for wrong in ("0\n", "0\n8\n1\n", "0\nx\n", "0\n1.5\n"):
        (tmp_path / "a.labels").write_text(wrong)
        with pytest.raises(CloudFileError, match=r"a\.labels: "):
            read_cloud(tmp_path / name)


def test_text_with_labels_of_its_own_keeps_them(tmp_path):
    (tmp_path / "a.txt").write_text("x y z class\n1 2 3 7\n")
    (tmp_path / "a.labels").write_text("0\n")
    scene, scales = read_scaled(tmp_path / "a.txt")
    assert scene["segment"].tolist() == [7] and "a.labels was not read" in scales.notes["coord"][0]


def e57_header(length):
    return struct.pack("<8sIIQQQQ", b"ASTM-E57", 1, 0, length, 48, 0, 1024)


def test_e57_without_its_reader_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "a.e57"
    path.write_bytes(e57_header(48))
    monkeypatch.setitem(sys.modules, "pye57", None)
    with pytest.raises(CloudFileError, match=r"a\.e57: .*\[e57\]"):
        read_cloud(path)
    path.write_bytes(e57_header(4096))
    with pytest.raises(CloudFileError, match="is cut off: it must have 4096 bytes"):
        read_cloud(path)
    path.write_bytes(b"ply\n" * 20)
    with pytest.raises(CloudFileError, match="is not an E57 file"):
        read_cloud(path)


def stand_in(count, limit=255.0, fail=False):
    """A reader of one scan of three points, of which one is invalid."""
    red = SimpleNamespace(value=lambda: limit)
    fields = ["cartesianX", "cartesianY", "cartesianZ", "colorRed", "colorGreen", "colorBlue"]
    header = SimpleNamespace(
        point_count=count, point_fields=fields, node={"colorLimits": {"colorRedMaximum": red}}
    )
    columns = {f"cartesian{axis}": np.array([1.0, 2.0]) for axis in "XYZ"}
    columns |= {f"color{name}": np.array([7, 8], np.uint8) for name in ("Red", "Green", "Blue")}

    def read_scan(number, **options):
        assert options["transform"] and options["ignore_missing_fields"] and options["colors"]
        assert not options["intensity"]
        if fail:
            raise RuntimeError("bad checksum")
        return columns

    file = SimpleNamespace(
        scan_count=1, get_header=lambda n: header, read_scan=read_scan, close=lambda: None
    )
    return SimpleNamespace(E57=lambda path: file)


def test_e57_is_bounded_before_memory_is_taken(tmp_path, monkeypatch):
    path = tmp_path / "a.e57"
    path.write_bytes(e57_header(48))
    monkeypatch.setitem(sys.modules, "pye57", stand_in(3))
    found = read_e57(path)
    assert found["x"].tolist() == [1, 2] and found["red"].tolist() == [7, 8]
    assert found.notes == ("1 of 3 points are marked as invalid; they were left out",)
    for wrong, problem in (
        (stand_in(10**12), "more than the file can hold"),
        (stand_in(3, limit=65535.0), "colours reach 65535"),
        (stand_in(3, fail=True), "not a readable E57 file: bad checksum"),
    ):
        monkeypatch.setitem(sys.modules, "pye57", wrong)
        with pytest.raises(CloudFileError, match=rf"a\.e57: .*{problem}"):
            read_cloud(path)


def test_e57_of_two_scans_with_poses(tmp_path):
    pye57 = pytest.importorskip("pye57")
    path = tmp_path / "a.e57"
    file = pye57.E57(str(path), mode="w")
    rng = np.random.default_rng(0)
    xyz = rng.random((2, 50, 3)) * 10
    for number in range(2):
        columns = dict(zip(("cartesianX", "cartesianY", "cartesianZ"), xyz[number].T, strict=True))
        columns["intensity"] = rng.random(50).astype(np.float32)
        for name in ("colorRed", "colorGreen", "colorBlue"):
            columns[name] = rng.integers(0, 256, 50).astype(np.uint8)
        half = np.sqrt(0.5)  # a quarter turn about z
        file.write_scan_raw(
            columns,
            rotation=np.array([half, 0, 0, half]),
            translation=np.array([100.0 * number, 0, 5]),
        )
    file.close()
    scene = read_cloud(path)
    wanted = np.stack([-xyz[..., 1], xyz[..., 0], xyz[..., 2] + 5], axis=-1)
    wanted[1, :, 0] += 100
    np.testing.assert_allclose(scene.coord + scene.origin, wanted.reshape(-1, 3), atol=1e-4)
    assert (
        scene["scan"].tolist() == [0] * 50 + [1] * 50 and "color" in scene and "strength" in scene
    )
    write_labelled(path, tmp_path / "b.ply", np.arange(100))
    assert read_cloud(tmp_path / "b.ply")["segment"].tolist() == list(range(100))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CloudFileError, match="is cut off"):
        read_cloud(path)
