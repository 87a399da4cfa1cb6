"""Confidence, entropy, margin, heights and codes as fields of labelled copies, and the legend of the classes."""

from __future__ import annotations

import laspy
import numpy as np
import pytest

from pointseg.files import (
    CloudFileError,
    check_labelled,
    read_cloud,
    read_columns,
    write_cloud,
    write_labelled,
)
from pointseg.files.labelling.certainty import is_below
from pointseg.files.las.legend import legend_of
from pointseg.scene import Scene
from tests.pointseg.files.las.test_las import las

CERTAINTY = np.array([[9000, 1234, 8500], [3333, 10000, 1], [0, 0, 0]], np.uint16)
CLASSES = np.array([2, 0, -1])
NAMES = ("confidence", "entropy", "margin")
HEIGHTS = np.array([0.125, -0.5, np.nan], np.float32)


def scene(**fields):
    coord = np.array([[0, 0, 0], [1, 2, 3], [4, 5, 6]], np.float32)
    return Scene(coord=coord, fields={"number": np.arange(3, dtype=np.int32), **fields})


@pytest.mark.parametrize(
    "name", ["a.ply", "a.pcd", "a.las", "a.laz", "a.npz", "a.npy", "a.txt", "a.csv", "folder"]
)
def test_fields_of_every_type(tmp_path, name):
    sensor = np.array([7, 8, 9], np.float32)  # a scanner's own
    write_cloud(tmp_path / name, scene(confidence=sensor))
    colors = np.full((3, 3), 9, np.uint8)
    more = {"codes": (2, 6, 5), "heights": HEIGHTS, "certainty": CERTAINTY, "colors": colors}
    write_labelled(tmp_path / name, tmp_path / "1" / name, CLASSES, **more)
    write_labelled(tmp_path / "1" / name, tmp_path / "2" / name, CLASSES, certainty=CERTAINTY[::-1])
    is_las = name.endswith(("las", "laz"))
    for folder, expected, begun in (("1", CERTAINTY, is_las), ("2", CERTAINTY[::-1], True)):
        found = read_columns(tmp_path / folder / name)
        np.testing.assert_array_equal(found["confidence"], sensor)
        for number, measure in enumerate(NAMES):
            own = f"pointseg_{measure}" if begun or measure == "confidence" else measure
            np.testing.assert_allclose(found[own], expected[:, number] / 10000, atol=1e-7)
        read = read_cloud(tmp_path / folder / name)
        assert read["segment"].tolist() == CLASSES.tolist()
        assert read["number"].tolist() == [0, 1, 2]
        np.testing.assert_array_equal(found["height_above_ground"], HEIGHTS)
        assert found["classification"].tolist() == [5, 2, 1]
        assert set(np.unique(read["color"])) <= {9, 128}
    if name.endswith("txt"):
        first = (tmp_path / "1" / name).read_text(encoding="utf-8").splitlines()[1]
        assert first.endswith(" 2 5 0.9 0.1234 0.85 0.125")


def test_las_says_what_fields_mean(tmp_path):
    las(tmp_path / "a.laz", point_format=6, version="1.4")
    certainty = np.tile([[9000, 1234, 8500]], (4, 1)).astype(np.uint16)
    names = ("ground", "Gebäude", "tree", "water")
    write_labelled(
        tmp_path / "a.laz",
        tmp_path / "b.laz",
        np.array([0, 1, 2, 3]),
        certainty=certainty,
        legend=names,
    )
    found = laspy.read(tmp_path / "b.laz")
    (record,) = (vlr for vlr in found.header.vlrs if vlr.user_id == "pointseg")
    assert record.record_data.decode() == "0 ground\n1 Gebäude\n2 tree\n3 water\n"
    form = found.point_format
    added = {d.name: (d.description, d.dtype, d.scales) for d in form.extra_dimensions}
    assert added["pointseg_class"][0] == "0 ground, 1 Gebäude, ..."
    assert added["pointseg_confidence"] == ("probability of the class", np.uint16, [1e-4])
    assert added["pointseg_entropy"][0] == "0: sure, 1: all classes alike"
    assert added["pointseg_margin"][0] == "first minus second probability"


@pytest.mark.parametrize(
    ("names", "legend"),
    [
        (("a", "b"), "0 a, 1 b"),
        (("x" * 40, "b"), ""),
        (("x" * 14, "y" * 12), "0 " + "x" * 14 + ", 1 " + "y" * 12),  # 32 bytes
        (("x" * 14, "y" * 13), "0 " + "x" * 14 + ", ..."),
        (("ä" * 7, "y" * 13), "0 " + "ä" * 7 + ", ..."),
        ((), ""),
    ],
)
def test_a_legend_is_what_fits(names, legend):
    assert legend_of(names) == legend and len(legend.encode()) <= 32


def test_what_has_no_place_for_them_is_refused_before_the_work(tmp_path):
    source, target = tmp_path / "a.bin", tmp_path / "out" / "a.bin"
    np.zeros((3, 4), "<f4").tofile(source)
    check_labelled(source, target)
    for refuse in (
        lambda: check_labelled(source, target, measured=True),
        lambda: write_labelled(source, target, CLASSES, certainty=CERTAINTY),
        lambda: check_labelled(source, target, heights=True),
        lambda: check_labelled(source, target, codes=(2, 6, 5)),
    ):
        with pytest.raises(CloudFileError, match=r"a\.bin"):
            refuse()
    write_cloud(tmp_path / "a.ply", scene())
    with pytest.raises(CloudFileError, match="certainty"):
        write_labelled(tmp_path / "a.ply", tmp_path / "b.ply", CLASSES, certainty=CERTAINTY[:2])
    with pytest.raises(CloudFileError, match="heights"):
        write_labelled(tmp_path / "a.ply", tmp_path / "b.ply", CLASSES, heights=HEIGHTS[:2])


def test_what_is_below_a_confidence():
    steps = np.array([[5999], [6000], [6001], [0], [10000]], np.uint16)
    assert is_below(steps, 0.6).tolist() == [True, False, False, False, False]
    assert is_below(steps, 1).tolist() == [True, True, True, False, False]


def comments(path, mark):
    """The comments of a header, as lines of text."""
    head = path.read_bytes().split(b"end_header")[0].split(b"DATA")[0].decode()
    return [line.removeprefix(mark) for line in head.splitlines() if line.startswith(mark)]


@pytest.mark.parametrize(("suffix", "mark"), [(".ply", "comment "), (".pcd", "# ")])
def test_no_comment_of_an_earlier_prediction_stays(tmp_path, suffix, mark):
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    write_cloud(one, scene().with_fields(**{"class": np.zeros((3, 1), np.float32)}))
    segment, before = np.array([1, -1, 0]), comments(one, mark)
    write_labelled(one, two, segment, legend=("a", "b", "c"))
    assert comments(two, mark)[-3:] == [
        f"pointseg_class {n} {name}" for n, name in enumerate("abc")
    ]
    given = {"codes": (5, 5), "legend": ("Tür", f"wall\npaper {'x' * 2000}")}
    write_labelled(two, one, segment, **given)
    added = [line for line in comments(one, mark) if line not in before]
    assert added[0] == "pointseg_class 0 Tür" and added[1].startswith(
        "pointseg_class 1 wall paper xxx"
    )
    assert added[2].startswith("classification 5 Tür, wall paper xxx") and len(added) == 3
    assert all(len(line.encode()) <= 400 for line in added)
    found = read_cloud(one)
    assert found["segment"].tolist() == [1, -1, 0] and found["classification"].tolist() == [5, 1, 5]
    np.testing.assert_array_equal(found.coord, scene().coord)


def test_comments_of_ply_name_the_classes_once(tmp_path):
    write_cloud(tmp_path / "a.ply", scene())
    head = (tmp_path / "a.ply").read_bytes()
    own = head.replace(b"element vertex", b"comment class 7 was here\nelement vertex", 1)
    (tmp_path / "a.ply").write_bytes(own)
    for source, target, names in (("a", "b", ("Tür", "wall\npaper")), ("b", "a", ("x",) * 3)):
        write_labelled(
            tmp_path / f"{source}.ply", tmp_path / f"{target}.ply", np.zeros(3, int), legend=names
        )
    lines = (tmp_path / "b.ply").read_bytes().split(b"end_header")[0].decode().splitlines()
    assert lines[2:4] == ["comment class 0 Tür", "comment class 1 wall paper"]
    assert "comment class 7 was here" in lines
    lines = (tmp_path / "a.ply").read_bytes().split(b"end_header")[0].decode().splitlines()
    assert [line for line in lines if "pointseg_class" in line and "comment" in line] == [
        f"comment pointseg_class {number} x" for number in range(3)
    ]
