"""S3DIS: rooms prepared from annotations in the official format, folds, the one known defect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pointseg.datasets import open_dataset
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.s3dis.dataset import AREAS, CLASSES
from pointseg.datasets.s3dis.prepare import align_room, prepare, read_angles, read_annotation
from tests.pointseg.datasets.official import object_rows, write_angles, write_room


def test_classes() -> None:
    assert len(CLASSES) == 13
    assert (CLASSES.names[0], CLASSES.names[8], CLASSES.names[12]) == (
        "ceiling",
        "chair",
        "clutter",
    )


def test_a_room_goes_from_annotations_to_a_scene(tmp_path: Path) -> None:
    objects = {
        "wall_1": "1 2 3 10 20 30\n1.5 2 3 0 255 7.000000\n",
        "chair_10": "4 4 4 1 1 1\n",
        "chair_2": "5 5 5 2 2 2\n",
        "stairs_1": "6 6 6 3 3 3\n",
        "._wall_1": b"\x00\x05\x16\x07",
    }
    write_room(tmp_path / "Stanford3dDataset_v1.2", "Area_1", "office_1", objects)
    write_room(
        tmp_path / "Stanford3dDataset_v1.2", "Area_5", "hallway_2", {"floor_1": "0 0 0 9 9 9\n"}
    )
    done = prepare(tmp_path, tmp_path / "out", normals="none")
    assert done.splits["Area_1"] == ("office_1",) and done.splits["Area_5"] == ("hallway_2",)
    assert "Area_2: is missing" in done.notes
    assert "Area_1/office_1: objects of other classes become clutter: stairs (1)" in done.notes

    dataset = open_dataset("s3dis", tmp_path / "out")
    assert dataset.splits() == AREAS and dataset.fields == {"color"}
    scene = dataset.load("Area_1", "office_1")
    # files in natural order: chair_2, chair_10, stairs_1, wall_1
    assert scene.coord[:, 0].tolist() == [5, 4, 6, 1, 1.5]
    assert scene["color"][3:].tolist() == [[10, 20, 30], [0, 255, 7]]
    assert scene["segment"].tolist() == [8, 8, 12, 2, 2]
    assert scene["instance"].tolist() == [0, 1, 2, 3, 3]


def test_rooms_are_turned_by_their_angle_about_the_middle_of_their_box() -> None:
    # A box from (0, 0) to (4, 2); turned by -90 degrees about (2, 1) it goes from (1, -1) to (3, 3).
    xyz = np.array([[0.0, 0, 0], [4, 0, 5], [4, 2, 0]])
    assert align_room(xyz, 90).tolist() == [[1, 3, 0], [1, -1, 5], [3, -1, 0]]
    assert align_room(xyz, 180).tolist() == [[4, 2, 0], [0, 2, 5], [0, 0, 0]]
    assert align_room(xyz, 0).tolist() == xyz.tolist()
    assert align_room(align_room(xyz, 90), 270) == pytest.approx(xyz)


def test_aligned_rooms(tmp_path: Path) -> None:
    write_room(tmp_path, "Area_3", "WC_1", {"wall_1": "0 0 0 1 1 1\n4 0 5 1 1 1\n4 2 0 1 1 1\n"})
    with pytest.raises(DatasetError, match="alignmentAngle.txt: is missing.*leave --align out"):
        prepare(tmp_path, tmp_path / "out", align=True, normals="none")
    write_angles(tmp_path, "Area_3", {"other": 0})
    with pytest.raises(DatasetError, match="no angle for room 'WC_1'"):
        prepare(tmp_path, tmp_path / "out", align=True, normals="none")
    write_angles(tmp_path, "Area_3", {"WC_1": 90})
    prepare(tmp_path, tmp_path / "out", align=True, normals="none")
    scene = open_dataset("s3dis", tmp_path / "out").load("Area_3", "WC_1")
    assert scene.coord.tolist() == [[1, 3, 0], [1, -1, 5], [3, -1, 0]]
    with pytest.raises(
        DatasetError, match="prepared with align = True.*now it would be align = False"
    ):
        prepare(tmp_path, tmp_path / "out", normals="none")


@pytest.mark.parametrize("line", ["WC_1", "WC_1 45", "WC_1 x", "WC_1 0 0"])
def test_other_angles_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "angles.txt").write_text(f"## a b ##\n\nWC_2 270\n{line}\n")
    with pytest.raises(DatasetError, match="lines must be a room and one of"):
        read_angles(tmp_path / "angles.txt")


def test_angles_are_read(tmp_path: Path) -> None:
    write_angles(tmp_path, "Area_1", {"WC_1": 180, "hallway_1": 0})
    assert read_angles(tmp_path / "Area_1" / "Area_1_alignmentAngle.txt") == {
        "WC_1": 180,
        "hallway_1": 0,
    }


def test_normals_of_flat_walls_point_into_the_room(tmp_path: Path) -> None:
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2) / 10
    floor = "".join(f"{x} {y} 0 1 1 1\n" for x, y in grid)
    ceiling = "".join(f"{x} {y} 3 1 1 1\n" for x, y in grid)
    write_room(tmp_path, "Area_6", "office_9", {"floor_1": floor, "ceiling_1": ceiling})
    prepare(tmp_path, tmp_path / "out")
    dataset = open_dataset("s3dis", tmp_path / "out")
    assert dataset.fields == {"color", "normal"}
    scene = dataset.load("Area_6", "office_9")
    up = np.where(scene.coord[:, 2] == 0, 1, -1)
    assert scene["normal"] == pytest.approx(np.stack([0 * up, 0 * up, up], 1), abs=1e-5)


ROWS = b"1 2 3 10 20 103.000000\n4 5 6 10 20 103.0\x100000\n7 8 9 1 2 3\n"


def test_the_known_defect_is_repaired_and_reported(tmp_path: Path) -> None:
    folder = write_room(tmp_path, "Area_5", "office_19", {"ceiling_1": ROWS})
    table, notes = read_annotation(folder / "ceiling_1.txt", "Area_5", "office_19", "ceiling")
    assert table.tolist() == [[1, 2, 3, 10, 20, 103], [4, 5, 6, 10, 20, 103], [7, 8, 9, 1, 2, 3]]
    assert notes == ["ceiling_1.txt, line 2: a stray control byte was removed (known defect)"]
    done = prepare(tmp_path, tmp_path / "out", normals="none")
    assert f"Area_5/office_19: {notes[0]}" in done.notes
    blank = b"1 2 3 162 99 7\n22.350 6.692 3.048 185\x00187 182\n"  # as in the released hallway_6
    folder = write_room(tmp_path, "Area_5", "hallway_6", {"ceiling_1": blank})
    table, notes = read_annotation(folder / "ceiling_1.txt", "Area_5", "hallway_6", "ceiling")
    assert table[1].tolist() == [22.35, 6.692, 3.048, 185, 187, 182]
    assert notes == [
        "ceiling_1.txt, line 2: a stray control byte was taken as a blank (known defect)"
    ]


@pytest.mark.parametrize(
    ("data", "area", "message"),
    [
        (ROWS, "Area_1", "line 2 .*0x10"),
        (ROWS.replace(b"7 8", b"\x01 8"), "Area_5", "one of 2"),
        (ROWS.replace(b"103.0\x100000", b"10x"), "Area_5", "is damaged"),
        (ROWS.replace(b"103.0\x100000", b"\xff"), "Area_5", "is damaged"),
        (ROWS.replace(b" 103.0\x100000", b""), "Area_5", "is damaged"),
        (b"1 2 3\n", "Area_5", "six finite numbers"),
        (b"1 2 nan 4 5 6\n", "Area_5", "not finite"),
        (b"1 2 3 4 5 256\n", "Area_5", "colours must be 0 to 255, got 4 to 256"),
        (b"1 2 3 -4 5 6\n", "Area_5", "colours must be 0 to 255, got -4 to 6"),
        (b" \n", "Area_5", "is empty"),
    ],
)
def test_other_defects_are_refused(tmp_path: Path, data: bytes, area: str, message: str) -> None:
    folder = write_room(tmp_path, area, "office_19", {"ceiling_1": data})
    with pytest.raises(DatasetError, match=message):
        read_annotation(folder / "ceiling_1.txt", area, "office_19", "ceiling")
    write_room(tmp_path, "Area_1", "office_2", {"floor_1": object_rows(5)})
    done = prepare(tmp_path, tmp_path / "out", normals="none")
    assert list(done.failed) == [f"{area}/office_19"] and done.splits["Area_1"] == ("office_2",)


def test_what_is_no_s3dis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no room"):
        prepare(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="'normals' must be one of estimate, none, got 'mesh'"):
        prepare(tmp_path, tmp_path / "out", normals="mesh")
    write_room(tmp_path, "Area_1", "empty_1", {})
    done = prepare(tmp_path, tmp_path / "out", normals="none")
    assert "no annotations" in done.failed["Area_1/empty_1"]
