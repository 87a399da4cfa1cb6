"""PCD: all three forms, packed colours, several values per field, organised clouds, bad headers."""

from __future__ import annotations

import struct

import lzf
import numpy as np
import pytest

from pointseg.files import CloudFileError, check_labelled, read_cloud, write_labelled

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
        packed = lzf.compress(data, 2 * len(data))
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
    with pytest.raises(CloudFileError, match="'code'"):
        write_labelled(tmp_path / "a.pcd", tmp_path / "b.pcd", np.array([1, 2]), field="code")


def test_a_field_of_several_values_takes_no_confidence(tmp_path):
    source, target = tmp_path / "a.pcd", tmp_path / "b.pcd"
    names = b"rgb _ pointseg_confidence confidence"
    source.write_bytes(content("binary").replace(b"rgb _ code label", names))
    check_labelled(source, target)
    with pytest.raises(CloudFileError, match="'pointseg_confidence'"):
        check_labelled(source, target, measured=True)


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


def test_without_width_and_height(tmp_path):
    text = content("ascii").decode().replace("WIDTH 2\nHEIGHT 1\n", "")
    (tmp_path / "a.pcd").write_text(text)
    check(read_cloud(tmp_path / "a.pcd"))


def test_without_count_height_and_points(tmp_path):
    header = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 2\nDATA ascii\n"
    (tmp_path / "a.pcd").write_text(header + "1 2 3\n4 5 6\n")
    assert read_cloud(tmp_path / "a.pcd").coord.tolist() == [[1, 2, 3], [4, 5, 6]]
    write_labelled(tmp_path / "a.pcd", tmp_path / "b.pcd", np.array([0, 1]))
    assert (tmp_path / "b.pcd").read_text().endswith("1 2 3 0\n4 5 6 1\n")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("DATA ascii\n", "", "header"),
        ("VERSION", "VERSIUN", "VERSIUN"),
        ("VERSION 0.7", "WIDTH 3", "WIDTH"),
        ("SIZE 4 4 4 4 1 2 4\n", "", "SIZE"),
        ("SIZE 4 4 4 4 1 2 4", "SIZE 4 4 4", "3 SIZE"),
        ("SIZE 4", "SIZE 3", "'x'.*SIZE 3"),
        ("TYPE F", "TYPE Z", "'x'.*TYPE Z"),
        ("COUNT 1", "COUNT 0", "'x'.*COUNT 0"),
        ("COUNT 1", "COUNT 999999999", "bytes"),
        ("FIELDS x y", "FIELDS x x", "twice"),
        ("FIELDS x", "FIELDS a", "x, y and z"),
        ("WIDTH 2", "WIDTH two", "WIDTH"),
        ("WIDTH 2", "WIDTH 3", "WIDTH"),
        ("DATA ascii", "DATA zip", "DATA"),
        ("-5 6 7", "-5 6.5 7", "'code'"),
        ("-5 6 7", "-5 x 7", "malformed"),
        ("WIDTH 2\nHEIGHT 1\nVIEWPOINT 1 2 3 0.5 0.5 0.5 0.5\nPOINTS 2\n", "", "POINTS"),
        ("nan", "\n", "cut off|malformed"),
    ],
)  # fmt: skip
def test_malformed_headers_and_rows_are_refused(tmp_path, old, new, named):
    text = content("ascii").decode()
    assert old in text
    (tmp_path / "a.pcd").write_text(text.replace(old, new, 1))
    with pytest.raises(CloudFileError, match=rf"a\.pcd.*{named}"):
        read_cloud(tmp_path / "a.pcd")


@pytest.mark.parametrize("form", FORMS)
def test_files_that_are_cut_off_are_refused(tmp_path, form):
    data = content(form)
    (tmp_path / "a.pcd").write_bytes(data[:-1] if form != "ascii" else data.rsplit(b"nan", 1)[0])
    with pytest.raises(CloudFileError, match="cut off"):
        read_cloud(tmp_path / "a.pcd")


@pytest.mark.parametrize("form", FORMS)
def test_more_points_than_any_file_holds_are_refused(tmp_path, form):
    data = content(form).replace(b"WIDTH 2", b"WIDTH 1000000000000")
    (tmp_path / "a.pcd").write_bytes(data.replace(b"POINTS 2", b"POINTS 1000000000000"))
    with pytest.raises(CloudFileError, match="1000000000000 (rows|points)"):
        read_cloud(tmp_path / "a.pcd")


@pytest.mark.parametrize(
    ("at", "damage"),
    [(8, b"\xff\xff"), (4, struct.pack("<I", 53)), (4, struct.pack("<I", 2**32 - 1))],
)
def test_damaged_compression_is_refused(tmp_path, at, damage):
    data = bytearray(content("binary_compressed"))
    at += data.index(b"DATA binary_compressed\n") + len(b"DATA binary_compressed\n")
    data[at : at + len(damage)] = damage
    (tmp_path / "a.pcd").write_bytes(data)
    with pytest.raises(CloudFileError, match="compressed data"):
        read_cloud(tmp_path / "a.pcd")


def test_a_compressed_file_may_announce_no_more_than_its_stream_can_hold(tmp_path):
    many = 300_000_000
    head = HEADER.format("binary_compressed").replace("POINTS 2", f"POINTS {many}")
    sizes = struct.pack("<II", 10, (many * 27) % 2**32)
    (tmp_path / "a.pcd").write_bytes(
        head.replace("WIDTH 2", f"WIDTH {many}").encode() + sizes + bytes(10)
    )
    with pytest.raises(CloudFileError, match=f"{many} points"):
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
