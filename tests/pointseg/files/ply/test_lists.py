"""Lists of any length in the vertices of PLY files: single values are read, lists stay in copies."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pointseg.files import CloudFileError, in_pieces, read_cloud, write_labelled
from pointseg.files.ply import label as module
from pointseg.files.ply.read import list_notes

ROWS = [
    ([7, 8, 9], 1.5, 10, [], 3),
    ([], 2.5, 20, [0.5], 4),
    ([1], 3.5, 30, [0.25, 0.75, 1.0], 5),
    ([2, 3], 4.5, 40, [], 6),
]
HEADER = (
    "ply\nformat {form} 1.0\nelement vertex {count}\nproperty list uchar int views\nproperty double x\n"
    "property double y\nproperty double z\nproperty uchar red\nproperty list ushort float weights\n"
    "property uchar green\nproperty uchar blue\nproperty uchar pointseg_class\n"
    "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
)
FORMS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


def ply(path, form, rows=ROWS):
    """A file with a list first, one between the colours, and a face of four corners behind."""
    order, body = FORMS[form], b""
    for views, x, red, weights, green in rows:
        if order:
            body += struct.pack(f"{order}B{len(views)}i", len(views), *views)
            body += struct.pack(f"{order}3dB", x, x + 0.25, -x, red)
            body += struct.pack(f"{order}H{len(weights)}f", len(weights), *weights)
            body += struct.pack("3B", green, green + 1, 9)
        else:
            words = [len(views), *views, x, x + 0.25, -x, red, len(weights), *weights]
            body += " ".join(map(str, [*words, green, green + 1, 9])).encode() + b"\n"
    face = struct.pack(f"{order}B4i", 4, 0, 1, 2, 3) if order else b"4 0 1 2 3\n"
    path.write_bytes(HEADER.format(form=form, count=len(rows)).encode() + body + face)
    return path


def lists_of(path):
    """Both lists of each vertex, and what follows the vertices, read by itself."""
    data = path.read_bytes()
    head, body = data.split(b"end_header\n", 1)
    form = next(name for name in FORMS if f"format {name} ".encode() in head)
    order, found, at = FORMS[form], [], 0
    wide = b"property int pointseg_class" in head
    if not order:
        *lines, face = body.decode().splitlines()
        for line in lines:
            words = line.split()
            first = int(words[0])
            second = int(words[first + 5])
            found.append(
                (words[1 : 1 + first], words[first + 6 : first + 6 + second], int(words[-1]))
            )
        return [([*map(int, a)], [*map(float, b)], c) for a, b, c in found], face
    for _ in ROWS:
        first = body[at]
        views = struct.unpack_from(f"{order}{first}i", body, at + 1)
        at += 1 + 4 * first + 25
        (second,) = struct.unpack_from(f"{order}H", body, at)
        weights = struct.unpack_from(f"{order}{second}f", body, at + 2)
        at += 2 + 4 * second
        (label,) = struct.unpack_from(f"{order}i" if wide else "B", body, at + 2)
        at += 6 if wide else 3
        found.append(([*views], [*weights], label))
    return found, body[at:]


@pytest.mark.parametrize("form", FORMS)
def test_single_values_are_read(tmp_path, form):
    scene = read_cloud(ply(tmp_path / "a.ply", form))
    assert scene.coord.tolist() == [[x, x + 0.25, -x] for _, x, *_ in ROWS]
    assert scene["color"].tolist() == [[r, g, g + 1] for _, _, r, _, g in ROWS]
    assert scene["segment"].tolist() == [9] * 4 and "views" not in scene
    (note,) = list_notes(tmp_path / "a.ply")
    assert "(views, weights) are not used; they stay in the result" in note
    assert len(read_cloud(ply(tmp_path / "b.ply", form, rows=[]))) == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("piece", [1, 3, 1_000_000])
def test_copies_keep_lists_and_what_follows(tmp_path, monkeypatch, form, piece):
    monkeypatch.setattr(module, "PIECE", piece)
    monkeypatch.setattr("pointseg.files.ply.lists.BLOCK", 5)
    source = ply(tmp_path / "a.ply", form)
    colors = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    write_labelled(source, tmp_path / "b.ply", np.array([0, 1, -1, 300]), colors=colors)
    scene = read_cloud(tmp_path / "b.ply")
    assert scene["segment"].tolist() == [0, 1, -1, 300]
    assert scene["color"].tolist() == [[1, 2, 3], [4, 5, 6], [128] * 3, [128] * 3]
    assert scene.coord.tolist() == read_cloud(source).coord.tolist()
    before, after = lists_of(source), lists_of(tmp_path / "b.ply")
    assert [lists[:2] for lists in before[0]] == [lists[:2] for lists in after[0]]
    assert [label for *_, label in after[0]] == [0, 1, -1, 300] and before[1] == after[1]


@pytest.mark.parametrize("form", ["binary_little_endian", "binary_big_endian"])
def test_pieces_are_the_whole(tmp_path, form):
    path = ply(tmp_path / "a.ply", form)
    pieces = in_pieces(path)
    assert pieces.count == 4
    found = [columns["x"].tolist() for columns in pieces.read(3)]
    assert found == [[1.5, 2.5, 3.5], [4.5]]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_cut_off_is_refused(tmp_path, form):
    data = ply(tmp_path / "a.ply", form).read_bytes()
    start = data.index(b"end_header\n") + 11
    body = len(data) - start - (17 if FORMS[form] else 10)
    for end in range(0, body, 7):
        (tmp_path / "a.ply").write_bytes(data[: start + end])
        with pytest.raises(CloudFileError, match=r"a\.ply"):
            read_cloud(tmp_path / "a.ply")


def test_lengths_that_lie_are_refused(tmp_path):
    data = ply(tmp_path / "a.ply", "binary_little_endian").read_bytes()
    start = data.index(b"end_header\n") + 11
    signed = data.replace(b"list uchar int views", b"list char int views")
    (tmp_path / "b.ply").write_bytes(signed[: start - 1] + b"\xff" + signed[start:])
    with pytest.raises(CloudFileError, match="a list of -1"):
        read_cloud(tmp_path / "b.ply")
    many = data.replace(b"element vertex 4", b"element vertex 400000000")
    (tmp_path / "a.ply").write_bytes(many)
    with pytest.raises(CloudFileError, match="is cut off"):
        read_cloud(tmp_path / "a.ply")
    text = ply(tmp_path / "c.ply", "ascii").read_text().replace("\n0 2.5", "\n-1 2.5")
    (tmp_path / "c.ply").write_text(text)
    with pytest.raises(CloudFileError, match="must begin with its length, got b'-1'"):
        read_cloud(tmp_path / "c.ply")


def test_the_case(shared):
    scene = read_cloud(shared / "cases/points/ply_vertex_lists/vertex_list.ply")
    assert len(scene) == 2000 and "color" in scene
