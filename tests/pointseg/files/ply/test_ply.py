"""PLY: text and both byte orders, tables before and after the vertices, damaged headers."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pointseg.files import CloudFileError, read_cloud, read_faces, write_labelled

TEXT = """ply
format ascii 1.0
comment made by hand
obj_info two points
element vertex 2
property double x
property double y
property float z
comment in between
property uchar red
property uchar green
property uchar blue
property ushort count
property float nx
property float ny
property float nz
property float scalar_Intensity
property int label
element face 2
property list uchar int vertex_indices
property uchar quality
end_header
12000000.125 2 3 255 128 0 60000 0 0 2 0.5 7
12000001.25 -2 -3 1 2 3 4 3 4 0 0.25 -1
3 0 1 1 9
3 1 1 0 8
"""
QUAD = ("3 1 1 0 8", "4 0 1 1 0 8")


def check(scene):
    """The cloud of TEXT."""
    assert scene.origin.tolist() == [12_000_000, 0, 0]
    assert scene.coord.tolist() == [[0.125, 2, 3], [1.25, -2, -3]]
    assert scene["color"].tolist() == [[255, 128, 0], [1, 2, 3]]
    np.testing.assert_allclose(scene["normal"], [[0, 0, 1], [0.6, 0.8, 0]], atol=1e-7)
    assert scene["strength"].tolist() == [[0.5], [0.25]]
    assert scene["segment"].tolist() == scene["label"].tolist() == [7, -1]
    assert scene["count"].tolist() == [60000, 4] and scene["count"].dtype == np.uint16


def binary(order, *change, faces_first=False):
    """TEXT in binary, with its faces behind the vertices or before them."""
    header, data = (TEXT.replace(*change) if change else TEXT).split("end_header\n")
    name = {"<": "little", ">": "big"}[order]
    header = header.replace("ascii", f"binary_{name}_endian")
    vertices, faces = b"", b""
    for line in data.splitlines():
        words = line.split()
        if len(words) == 12:
            numbers = [float(w) for w in words]
            vertices += struct.pack(order + "ddf", *numbers[:3])
            vertices += struct.pack(order + "BBBH", *map(int, words[3:7]))
            vertices += struct.pack(order + "ffffi", *numbers[7:11], int(words[11]))
        else:
            numbers = [int(w) for w in words]
            faces += struct.pack(order + f"B{numbers[0]}iB", *numbers)
    if faces_first:
        before, rest = header.split("element vertex", 1)
        vertex, face = rest.split("element face", 1)
        header = f"{before}element face{face}element vertex{vertex}"
        return header.encode() + b"end_header\n" + faces + vertices
    return header.encode() + b"end_header\n" + vertices + faces


def test_text_by_hand(tmp_path):
    (tmp_path / "a.ply").write_text(TEXT)
    check(read_cloud(tmp_path / "a.ply"))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("faces_first", [False, True])
def test_binary_by_hand(tmp_path, order, faces_first):
    (tmp_path / "a.ply").write_bytes(binary(order, faces_first=faces_first))
    check(read_cloud(tmp_path / "a.ply"))
    assert read_faces(tmp_path / "a.ply").tolist() == [[0, 1, 1], [1, 1, 0]]


def test_faces_of_text(tmp_path):
    (tmp_path / "a.ply").write_text(TEXT)
    assert read_faces(tmp_path / "a.ply").tolist() == [[0, 1, 1], [1, 1, 0]]


ALL = [TEXT.encode(), binary("<"), binary(">"), binary(">", faces_first=True)]


@pytest.mark.parametrize("content", ALL)
def test_a_labelled_copy_differs_by_the_class_alone(tmp_path, content):
    source, target = tmp_path / "a.ply", tmp_path / "b.ply"
    source.write_bytes(content)
    write_labelled(source, target, np.array([3, -1]))
    check_copy(target, [3, -1])
    new, old = target.read_bytes(), content
    assert b"property int class\n" in new
    assert read_faces(target).tolist() == read_faces(source).tolist()
    for kept in (b"comment made by hand\nobj_info two points\n", b"comment in between\n"):
        assert kept in new
    if content is not TEXT.encode() and b"ascii" not in content:
        assert len(new) == len(old) + len(b"property int class\n") + 2 * 4


def check_copy(path, classes):
    scene = read_cloud(path)
    assert scene["class"].tolist() == scene["segment"].tolist() == classes
    assert scene["label"].tolist() == [7, -1] and scene["count"].tolist() == [60000, 4]
    assert (scene.coord + scene.origin).tolist() == [[12000000.125, 2, 3], [12000001.25, -2, -3]]


def test_text_is_copied_as_it_is(tmp_path):
    (tmp_path / "a.ply").write_text(TEXT)
    write_labelled(tmp_path / "a.ply", tmp_path / "b.ply", np.array([3, 200]))
    lines = (tmp_path / "b.ply").read_text().splitlines()
    assert "12000000.125 2 3 255 128 0 60000 0 0 2 0.5 7 3" in lines
    assert "property uchar class" in lines and lines[-2:] == ["3 0 1 1 9", "3 1 1 0 8"]


@pytest.mark.parametrize("content", [TEXT.encode(), binary("<"), binary(">")])
def test_colours_take_the_place_of_those_that_are_there(tmp_path, content):
    (tmp_path / "a.ply").write_bytes(content)
    colors = np.array([[9, 8, 7], [6, 5, 4]], np.uint8)
    write_labelled(tmp_path / "a.ply", tmp_path / "b.ply", np.array([1, 0]), colors=colors)
    check_copy(tmp_path / "b.ply", [1, 0])
    scene = read_cloud(tmp_path / "b.ply")
    assert scene["color"].tolist() == [[6, 5, 4], [9, 8, 7]]


@pytest.mark.parametrize("kind", ["float", "ushort", "double"])
@pytest.mark.parametrize("form", ["ascii", "<"])
def test_colours_of_other_types_keep_their_range(tmp_path, kind, form):
    content = TEXT if form == "ascii" else binary("<").decode("latin-1")
    for color in ("red", "green", "blue"):
        content = content.replace(f"property uchar {color}", f"property {kind} {color}")
    if form == "ascii":
        values = "65535 0 0" if kind == "ushort" else "1 0.5 0"
        (tmp_path / "a.ply").write_text(content.replace("255 128 0", values).replace("1 2 3 4", "0 0 0 4"))  # fmt: skip
    else:
        pack = {"float": "f", "ushort": "H", "double": "d"}[kind]
        data = content.encode("latin-1")
        one = struct.pack("<BBB", 255, 128, 0)
        two = struct.pack("<BBB", 1, 2, 3)
        big = 65535 if kind == "ushort" else 1
        data = data.replace(one, struct.pack("<3" + pack, big, 0, 0), 1)
        data = data.replace(two, struct.pack("<3" + pack, 0, 0, 0), 1)
        (tmp_path / "a.ply").write_bytes(data)
    assert read_cloud(tmp_path / "a.ply")["color"][:, 0].tolist() == [255, 0]
    colors = np.array([[255, 0, 102]], np.uint8)
    write_labelled(tmp_path / "a.ply", tmp_path / "b.ply", np.array([0, 0]), colors=colors)
    assert f"property {kind} red".encode() in (tmp_path / "b.ply").read_bytes()
    np.testing.assert_allclose(read_cloud(tmp_path / "b.ply")["color"], [[255, 0, 102]] * 2, atol=1e-4)  # fmt: skip


def test_lines_that_end_as_on_windows(tmp_path):
    (tmp_path / "a.ply").write_bytes(TEXT.replace("\n", "\r\n").encode())
    check(read_cloud(tmp_path / "a.ply"))
    write_labelled(tmp_path / "a.ply", tmp_path / "b.ply", np.array([3, 4]))
    check_copy(tmp_path / "b.ply", [3, 4])
    assert b"property uchar class\r\n" in (tmp_path / "b.ply").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("ply\n", "plx\n", "ply"),
        ("end_header\n", "", "end_header"),
        ("format ascii 1.0\n", "", "'format'"),
        ("format ascii 1.0", "format binary_pdp_endian 1.0", "line 2"),
        ("element vertex 2", "element vertex -2", "line 5"),
        ("element vertex 2", "element vertex 20", "malformed|cut off"),
        ("element vertex 2", "element vertex 999999999999", "cut off: 999999999999 rows"),
        ("element vertex 2", "element point 2", "'vertex'"),
        ("element face 2", "element vertex 2", "twice"),
        ("property float nz", "property float nx", "twice"),
        ("property float nz", "property half nz", "line 16"),
        ("property float nz", "property list float float nz", "line 16"),
        ("property float nz", "property list uchar float nz", "12 numbers, not 14"),
        ("property double x", "property double a", "x, y and z"),
        ("property float nz\n", "", "12 numbers"),
        ("12000001.25", "twelve", "twelve"),
        ("4 3 4 0 0.25 -1", "4 3 4 0 0.25", "malformed"),
        ("1 2 3 4", "1 2 3.5 4", "'blue'"),
        ("1 2 3 4", "1 2 nan 4", "'blue'"),
        ("1 2 3 4", "1 2 300 4", "'blue'"),
    ],
)  # fmt: skip
def test_malformed_text_is_refused(tmp_path, old, new, named):
    assert old in TEXT
    (tmp_path / "a.ply").write_text(TEXT.replace(old, new, 1))
    with pytest.raises(CloudFileError, match=rf"a\.ply.*({named})"):
        read_cloud(tmp_path / "a.ply")


def test_text_that_is_cut_off_is_refused(tmp_path):
    at = TEXT.index("12000001.25")
    text = TEXT[:at].replace("element face 2", "element face 0")
    (tmp_path / "a.ply").write_text(text.replace("12000000.125 2", "12000000.1250000 2"))
    with pytest.raises(CloudFileError, match="cut off: 1 of 2 rows"):
        read_cloud(tmp_path / "a.ply")


@pytest.mark.parametrize("faces_first", [False, True])
def test_binary_that_is_cut_off_is_refused(tmp_path, faces_first):
    data = binary("<", faces_first=faces_first)
    rows = data.index(b"end_header\n") + len(b"end_header\n")
    for end in range(rows, rows + 40, 7):
        (tmp_path / "a.ply").write_bytes(data[:end])
        with pytest.raises(CloudFileError, match="is cut off"):
            read_cloud(tmp_path / "a.ply")


@pytest.mark.parametrize("faces_first", [False, True])
def test_polygons_are_refused_where_they_are_read(tmp_path, faces_first):
    path = tmp_path / "a.ply"
    path.write_bytes(binary("<", *QUAD, faces_first=faces_first))
    with pytest.raises(CloudFileError, match="triangles"):
        read_faces(path)
    check(read_cloud(path))
    write_labelled(path, tmp_path / "b.ply", np.array([3, -1]))
    if not faces_first:
        assert (tmp_path / "b.ply").read_bytes()[-32:] == path.read_bytes()[-32:]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("vertex_indices", "corners", "'vertex_indices'"),
        ("3 0 1 1 9", "3 0 1 5 9", "beyond its 2"),
        ("3 0 1 1 9", "3 0 1 9", "'face'"),
        ("3 0 1 1 9", "2 0 1 1 9", "triangles"),
        (*QUAD, "'face'"),
        ("3 1 1 0 8", "3 1 x 0 8", "'face'"),
        ("3 1 1 0 8\n", "", "1 of 2 rows|cut off"),
    ],
)
def test_malformed_faces_are_refused(tmp_path, old, new, named):
    (tmp_path / "a.ply").write_text(TEXT.replace(old, new))
    with pytest.raises(CloudFileError, match=named):
        read_faces(tmp_path / "a.ply")
