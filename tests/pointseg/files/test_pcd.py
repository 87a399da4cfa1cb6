"""PCD: all three forms, packed colours, several values per field, organised clouds, bad headers."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pointseg.files import CloudFileError, read_cloud, write_labelled
from pointseg.files.lzf import compress

HEADER = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS x y z rgb _ code label
SIZE 4 4 4 4 1 2 4
TYPE F F F F U I U
COUNT 1 1 1 1 3 2 1
WIDTH 2
HEIGHT 1
VIEWPOINT 1 2 3 0.5 0.5 0.5 0.5
POINTS 2
DATA {}
"""
KINDS = ("<f4", "<f4", "<f4", "<u4", "3u1", "2<i2", "<u4")
POINTS = [
    (1.0, 2.0, 3.0, 0x00FF8000, (1, 2, 3), (-5, 6), 7),
    (float("nan"), 0.0, -1.0, 0x00010203, (4, 5, 6), (7, -8), 20),
]


def content(form):
    rows = np.array(POINTS, [(str(number), kind) for number, kind in enumerate(KINDS)])
    header = HEADER.format(form).encode()
    if form == "binary":
        return header + rows.tobytes()
    if form == "binary_compressed":
        data = b"".join(rows[name].tobytes() for name in rows.dtype.names)
        packed = compress(data)
        return header + struct.pack("<II", len(packed), len(data)) + packed
    lines = []
    for x, y, z, rgb, pad, code, label in POINTS:
        (as_float,) = struct.unpack("<f", struct.pack("<I", rgb))
        lines.append(" ".join(map(str, (x, y, z, repr(as_float), *pad, *code, label))))
    return header + "\n".join(lines).encode() + b"\n"


def check(scene):
    np.testing.assert_array_equal(scene.coord, [[1, 2, 3], [np.nan, 0, -1]])
    assert scene["color"].tolist() == [[255, 128, 0], [1, 2, 3]]
    assert scene["code"].tolist() == [[-5, 6], [7, -8]] and scene["code"].dtype == np.int16
    assert scene["label"].tolist() == [7, 20]
    assert "_" not in scene


FORMS = ("ascii", "binary", "binary_compressed")


@pytest.mark.parametrize("form", FORMS)
def test_by_hand(tmp_path, form):
    (tmp_path / "a.pcd").write_bytes(content(form))
    scene = read_cloud(tmp_path / "a.pcd")
    check(scene)
    assert scene["segment"].tolist() == [7, 20]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("colors", [None, np.array([[9, 8, 7], [6, 5, 4]], np.uint8)])
def test_a_labelled_copy_keeps_form_viewpoint_and_fields(tmp_path, form, colors):
    (tmp_path / "a.pcd").write_bytes(content(form))
    write_labelled(tmp_path / "a.pcd", tmp_path / "b.pcd", np.array([1, -1]), colors=colors)
    scene = read_cloud(tmp_path / "b.pcd")
    assert scene["segment"].tolist() == scene["class"].tolist() == [1, -1]
    if colors is None:
        check(scene)
    else:
        assert scene["color"].tolist() == [[6, 5, 4], [128, 128, 128]]
    lines = (tmp_path / "b.pcd").read_bytes().splitlines()
    assert lines[0] == HEADER.encode().splitlines()[0]
    assert lines[2:6] == [
        b"FIELDS x y z rgb _ code label class",
        b"SIZE 4 4 4 4 1 2 4 4",
        b"TYPE F F F F U I U I",
        b"COUNT 1 1 1 1 3 2 1 1",
    ]
    assert b"VIEWPOINT 1 2 3 0.5 0.5 0.5 0.5" in lines and f"DATA {form}".encode() in lines


@pytest.mark.parametrize("form", FORMS)
def test_classes_may_stand_in_a_field_that_is_there(tmp_path, form):
    (tmp_path / "a.pcd").write_bytes(content(form))
    write_labelled(tmp_path / "a.pcd", tmp_path / "b.pcd", np.array([1, -1]), field="label")
    scene = read_cloud(tmp_path / "b.pcd")
    assert scene["label"].tolist() == [1, -1] and "class" not in scene
    assert scene["code"].tolist() == [[-5, 6], [7, -8]]


def test_a_field_of_several_values_takes_no_class(tmp_path):
    (tmp_path / "a.pcd").write_bytes(content("binary"))
    with pytest.raises(
        CloudFileError, match="field 'code' holds several values a point, not a class"
    ):
        write_labelled(tmp_path / "a.pcd", tmp_path / "b.pcd", np.array([1, 2]), field="code")


@pytest.mark.parametrize("kind", ["U", "I", "F"])
@pytest.mark.parametrize("name", ["rgb", "rgba"])
def test_packed_colours_of_all_types(tmp_path, kind, name):
    header = HEADER.format("binary").replace("TYPE F F F F", f"TYPE F F F {kind}")
    data = (
        content("binary")
        .split(b"DATA binary\n")[1]
        .replace(b"\x00\x80\xff\x00", b"\x00\x80\xff\xff")
    )
    (tmp_path / "a.pcd").write_bytes(header.replace(" rgb", f" {name}").encode() + data)
    assert read_cloud(tmp_path / "a.pcd")["color"].tolist() == [[255, 128, 0], [1, 2, 3]]


@pytest.mark.parametrize("kind", ["U", "I"])
def test_packed_colours_in_text_may_have_either_sign(tmp_path, kind):
    header = HEADER.format("ascii").replace("TYPE F F F F", f"TYPE F F F {kind}")
    rows = f"1 2 3 {0xFFFF8000} 0 0 0 0 0 0\n1 2 3 {0xFF010203 - 2**32} 0 0 0 0 0 0\n"
    (tmp_path / "a.pcd").write_text(header + rows)
    assert read_cloud(tmp_path / "a.pcd")["color"].tolist() == [[255, 128, 0], [1, 2, 3]]


def test_without_count_height_and_points(tmp_path):
    header = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 2\nDATA ascii\n"
    (tmp_path / "a.pcd").write_text(header + "1 2 3\n4 5 6\n")
    assert read_cloud(tmp_path / "a.pcd").coord.tolist() == [[1, 2, 3], [4, 5, 6]]
    write_labelled(tmp_path / "a.pcd", tmp_path / "b.pcd", np.array([0, 1]))
    assert (tmp_path / "b.pcd").read_text().endswith("1 2 3 0\n4 5 6 1\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("DATA ascii\n", "", "no line begins with DATA|is not of a PCD header"),
        ("VERSION", "VERSIUN", "line 2 is not of a PCD header: 'VERSIUN 0.7"),
        ("VERSION 0.7", "WIDTH 3", "its header has two lines WIDTH"),
        ("SIZE 4 4 4 4 1 2 4\n", "", "its header lacks SIZE"),
        ("SIZE 4 4 4 4 1 2 4", "SIZE 4 4 4", "its header names 7 FIELDS, but 3 SIZE, 7 TYPE and 7 COUNT"),
        ("SIZE 4", "SIZE 3", "field 'x' cannot have TYPE F, SIZE 3 and COUNT 1"),
        ("TYPE F", "TYPE Z", "field 'x' cannot have TYPE Z, SIZE 4 and COUNT 1"),
        ("COUNT 1", "COUNT 0", "field 'x' cannot have TYPE F, SIZE 4 and COUNT 0"),
        ("FIELDS x y", "FIELDS x x", "its header names a field twice: x, x, z"),
        ("FIELDS x", "FIELDS a", "has no columns x, y and z; it has: a, y, z, red"),
        ("WIDTH 2", "WIDTH two", "WIDTH must be a whole number, got 'two'"),
        ("WIDTH 2", "WIDTH 3", "WIDTH times HEIGHT is 3, but POINTS is 2"),
        ("WIDTH 2\nHEIGHT 1\n", "", None),
        ("DATA ascii", "DATA zip", "DATA must be ascii, binary, binary_compressed, got 'zip'"),
        ("-5 6 7", "-5 6.5 7", "field 'code' holds what is no int16"),
        ("-5 6 7", "-5 x 7", "the rows of 'point' are malformed"),
    ],
)  # fmt: skip
def test_malformed_headers_and_rows_are_refused(tmp_path, old, new, message):
    text = content("ascii").decode()
    assert old in text
    (tmp_path / "a.pcd").write_text(text.replace(old, new, 1))
    if message is None:
        check(read_cloud(tmp_path / "a.pcd"))
        return
    with pytest.raises(CloudFileError, match=message):
        read_cloud(tmp_path / "a.pcd")


def test_neither_points_nor_width_is_refused(tmp_path):
    text = content("ascii").decode().replace("WIDTH 2\nHEIGHT 1\n", "").replace("POINTS 2\n", "")
    (tmp_path / "a.pcd").write_text(text)
    with pytest.raises(CloudFileError, match="its header says neither POINTS nor WIDTH"):
        read_cloud(tmp_path / "a.pcd")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("ascii", "is cut off: 1 of 2 rows of 'point'"),
        ("binary", "is cut off: 2 points take 54 bytes, 53 are left"),
        ("binary_compressed", r"is cut off: \d+ compressed bytes announced, \d+ are left"),
    ],
)
def test_files_that_are_cut_off_are_refused(tmp_path, form, message):
    data = content(form)
    (tmp_path / "a.pcd").write_bytes(data[:-1] if form != "ascii" else data.rsplit(b"nan", 1)[0])
    with pytest.raises(CloudFileError, match=message):
        read_cloud(tmp_path / "a.pcd")


@pytest.mark.parametrize("form", FORMS)
def test_more_points_than_any_file_holds_are_refused(tmp_path, form):
    many = 10**12
    data = (
        content(form)
        .replace(b"WIDTH 2", b"WIDTH %d" % many)
        .replace(b"POINTS 2", b"POINTS %d" % many)
    )
    (tmp_path / "a.pcd").write_bytes(data)
    with pytest.raises(CloudFileError, match=f"{many} (rows|points)"):
        read_cloud(tmp_path / "a.pcd")


def test_damaged_compression_is_refused(tmp_path):
    data = content("binary_compressed")
    at = data.index(b"DATA binary_compressed\n") + len(b"DATA binary_compressed\n")
    (tmp_path / "a.pcd").write_bytes(data[: at + 8] + bytes([0xFF, 0xFF]) + data[at + 10 :])
    with pytest.raises(CloudFileError, match="its compressed data are damaged"):
        read_cloud(tmp_path / "a.pcd")


def test_a_real_organised_cloud(shared, tmp_path):
    source = shared / "data/points/tabletop_rgbd/train/learn0.pcd"
    scene = read_cloud(source)
    assert len(scene) == 640 * 480 and not scene.origin.any()
    assert np.unique(scene["segment"]).tolist() == [0, 1, 20, 30]
    np.testing.assert_array_equal(scene["segment"] == 0, ~np.isfinite(scene.coord).all(1))
    # Exactly a pinhole camera, row by row: x = (u - 319.5) z / 525.
    u, v = np.tile(np.arange(640), 480), np.repeat(np.arange(480), 640)
    seen = scene["segment"] > 0
    x, y, z = scene.coord[seen].T
    np.testing.assert_allclose(x, (u[seen] - 319.5) * z / 525, atol=1e-3)
    np.testing.assert_allclose(y, (v[seen] - 239.5) * z / 525, atol=1e-3)
    write_labelled(source, tmp_path / "b.pcd", scene["segment"] // 10)
    copy = read_cloud(tmp_path / "b.pcd")
    np.testing.assert_array_equal(copy["segment"], scene["segment"] // 10)
    np.testing.assert_array_equal(copy.coord, scene.coord)
    np.testing.assert_array_equal(copy["color"], scene["color"])
    assert b"WIDTH 640\nHEIGHT 480\n" in (tmp_path / "b.pcd").read_bytes()[:400]
    assert (tmp_path / "b.pcd").stat().st_size < 1.05 * source.stat().st_size
