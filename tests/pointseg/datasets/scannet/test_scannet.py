"""ScanNet: class lists, splits, and scans prepared from files in the official format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pointseg.datasets import open_dataset
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.scannet import classes200
from pointseg.datasets.scannet import dataset as scannet
from pointseg.datasets.scannet.dataset import ScanNet, ScanNet200, split_of
from pointseg.datasets.scannet.labels import read_label_table
from pointseg.datasets.scannet.prepare import prepare, vertex_normals
from pointseg.datasets.submission import Submits
from pointseg.files.table.errors import CloudFileError
from tests.pointseg.datasets.official import ROOF_XYZ, write_mesh, write_scan, write_scannet


def test_the_list_of_20_is_the_benchmarks() -> None:
    by_name = dict(zip(scannet.CLASSES.names, scannet.NYU40_IDS, strict=True))
    assert len(by_name) == 20
    assert (by_name["wall"], by_name["desk"], by_name["curtain"]) == (1, 14, 16)
    assert (by_name["refrigerator"], by_name["toilet"], by_name["otherfurniture"]) == (24, 33, 39)
    assert scannet.CLASSES.colors[0].tolist() == [174, 199, 232]


def test_the_list_of_200_is_complete() -> None:
    classes, ids = classes200.CLASSES, classes200.RAW_IDS
    assert len(classes) == len(set(ids)) == 200
    assert {name: len(group) for name, group in classes.groups.items()} == {
        "head": 66,
        "common": 68,
        "tail": 66,
    }
    assert sorted(sum(classes.groups.values(), ())) == list(range(200))
    by_name = dict(zip(classes.names, ids, strict=True))
    assert (by_name["wall"], by_name["office chair"], by_name["mattress"]) == (1, 10, 1191)
    assert (by_name["mailbox"], by_name["object"]) == (540, 1163)
    assert classes.names.index("pillow") == 11  # raw id 12 is not used
    assert classes.names.index("cushion") in classes.groups["common"]
    assert classes.names.index("paper") in classes.groups["tail"]


def test_splits_follow_the_rooms() -> None:
    assert len(scannet.VAL_ROOMS) == 142
    assert split_of("scene0011_00") == split_of("scene0011_01") == split_of("scene0704_01") == "val"
    assert split_of("scene0000_02") == split_of("scene0706_00") == "train"
    assert split_of("scene0707_00") == split_of("scene0806_00") == "test"
    for stranger in ("scene0707_01", "scene0807_00", "scene0000", "room", "xscene0000_00"):
        assert split_of(stranger) is None


def test_normals_are_weighted_by_area() -> None:
    # At the shared corner a triangle of area 2 in the plane z and one of area 1/2 in the plane x.
    xyz = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    normal = vertex_normals(xyz, np.array([[0, 1, 2], [0, 3, 4]]))
    assert normal[0] == pytest.approx(np.array([0.5, 0, 2]) / np.hypot(0.5, 2))
    assert normal[1].tolist() == [0, 0, 1]
    assert normal[3].tolist() == [1, 0, 0]


def test_normals_of_a_sphere_point_outwards() -> None:
    # An octahedron cut finer: each normal is its own vertex.
    xyz = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)
    faces = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    assert vertex_normals(xyz, np.array(faces)) == pytest.approx(xyz)
    assert vertex_normals(xyz, np.zeros((0, 3), int)).tolist() == np.zeros((6, 3)).tolist()


def test_a_scan_goes_from_the_official_files_to_a_scene(tmp_path: Path) -> None:
    write_scannet(tmp_path / "raw")
    done = prepare(tmp_path / "raw", tmp_path / "out")
    assert done.splits == {
        "train": ("scene0000_00",),
        "val": ("scene0011_01",),
        "test": ("scene0707_00",),
    }
    assert done.failed == {} and "1 of the official 1201 scans" in done.notes[0]

    dataset = open_dataset("scannet", tmp_path / "out")
    assert dataset.splits() == ("train", "val", "test")
    assert dataset.fields == {"color", "normal"}
    scene = dataset.load("train", "scene0000_00")
    assert scene.coord.tolist() == ROOF_XYZ.tolist()
    assert scene["color"][:2].tolist() == [[0, 1, 2], [4, 5, 6]]
    assert scene["normal"].tolist() == [[0, 0, 1]] * 4 + [[0, 0, 0]]
    # segments 7 7 3 9 4: wall, wall, office chair, office chair, none; nyu40 of office chair is chair
    assert scene["segment"].tolist() == [0, 0, 4, 4, -1]
    assert scene["instance"].tolist() == [0, 0, 1, 1, -1]

    fine = open_dataset("scannet200", tmp_path / "out").load("val", "scene0011_01")
    assert fine["segment"].tolist() == [0, 0, 9, 9, -1]
    test = dataset.load("test", "scene0707_00")
    assert len(test) == 5 and "segment" not in test


def test_ids_outside_of_a_list_are_ignored_there(tmp_path: Path) -> None:
    groups = [(0, "book", (7,)), (1, "pillar", (3,)), (2, "doodle", (9,)), (3, "object", (4,))]
    write_scannet(tmp_path / "raw", [])
    write_scan(tmp_path / "raw", "scene0000_00", groups=groups)
    prepare(tmp_path / "raw", tmp_path / "out")
    coarse = ScanNet(tmp_path / "out").load("train", "scene0000_00")
    fine = ScanNet200(tmp_path / "out").load("train", "scene0000_00")
    assert coarse["segment"].tolist() == [-1] * 5
    names = classes200.CLASSES.names
    book, pillar, thing = (names.index(name) for name in ("book", "pillar", "object"))
    assert fine["segment"].tolist() == [book, book, pillar, -1, thing]
    assert fine["instance"].tolist() == [0, 0, 1, 2, 3]


def test_names_that_the_table_lacks_are_ignored_and_reported(tmp_path: Path) -> None:
    groups = [(0, "wall", (7,)), (1, "gizmo", (3,)), (2, "gizmo", (9, 1234))]
    write_scannet(tmp_path / "raw", [])
    write_scan(tmp_path / "raw", "scene0000_00", groups=groups)
    notes = prepare(tmp_path / "raw", tmp_path / "out").notes
    assert any("2 objects are ignored" in note and "'gizmo' (2)" in note for note in notes)
    assert any("1 segments of objects have no vertices" in note for note in notes)
    scene = ScanNet(tmp_path / "out").load("train", "scene0000_00")
    assert scene["segment"].tolist() == [0, 0, -1, -1, -1]
    assert scene["instance"].tolist() == [0, 0, 1, 2, -1]


def test_scans_that_no_list_knows_are_left_out_and_reported(tmp_path: Path) -> None:
    write_scannet(tmp_path / "raw")
    write_scan(tmp_path / "raw", "scene0900_00")
    done = prepare(tmp_path / "raw", tmp_path / "out")
    assert any("not in the official lists" in n and "scans/scene0900_00" in n for n in done.notes)
    assert not (tmp_path / "out" / "train" / "scene0900_00").exists()


def break_mesh(scan: Path) -> None:
    mesh = scan / f"{scan.name}_vh_clean_2.ply"
    mesh.write_bytes(mesh.read_bytes()[:-5])


def break_lengths(scan: Path) -> None:
    path = scan / f"{scan.name}_vh_clean_2.0.010000.segs.json"
    path.write_text(json.dumps({"segIndices": [7, 7]}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_mesh, "cut off"),
        (break_lengths, "segments for 2 vertices, the mesh has 5"),
        (lambda s: (s / f"{s.name}.aggregation.json").unlink(), "the scan has no labels"),
        (lambda s: (s / f"{s.name}.aggregation.json").write_text("{"), "is damaged"),
        (
            lambda s: (s / f"{s.name}.aggregation.json").write_text('{"segGroups": [{}]}'),
            "must have id, label",
        ),
        (
            lambda s: (s / f"{s.name}.aggregation.json").write_text('{"segGroups": 3}'),
            "must be a list",
        ),
        (
            lambda s: (s / f"{s.name}_vh_clean_2.0.010000.segs.json").write_text(
                '{"segIndices": ["a"]}'
            ),
            "whole numbers",
        ),
        (
            lambda s: (s / f"{s.name}_vh_clean_2.0.010000.segs.json").write_text(
                '{"segIndices": [[1]]}'
            ),
            "list of numbers",
        ),
        (lambda s: (s / f"{s.name}_vh_clean_2.ply").unlink(), "is missing"),
    ],
)
def test_a_bad_scan_costs_only_itself(tmp_path: Path, damage, message: str) -> None:
    write_scannet(tmp_path / "raw")
    damage(tmp_path / "raw" / "scans" / "scene0000_00")
    done = prepare(tmp_path / "raw", tmp_path / "out")
    assert done.splits["train"] == () and done.splits["val"] == ("scene0011_01",)
    assert list(done.failed) == ["train/scene0000_00"]
    assert message in done.failed["train/scene0000_00"]
    assert not list((tmp_path / "out" / "train").glob("*"))


def test_a_mesh_without_colour_is_refused(tmp_path: Path) -> None:
    write_scannet(tmp_path / "raw", [])
    scan = write_scan(tmp_path / "raw", "scene0000_00")
    text = "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
    (scan / "scene0000_00_vh_clean_2.ply").write_text(text + "end_header\n0 0 0\n")
    done = prepare(tmp_path / "raw", tmp_path / "out")
    assert "no colour" in done.failed["train/scene0000_00"]


def test_what_is_no_scannet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="must be the folder of ScanNet's download"):
        prepare(tmp_path, tmp_path / "out")
    write_scan(tmp_path, "scene0000_00")
    with pytest.raises(DatasetError, match="combined.tsv: is missing"):
        prepare(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no classes"),
        ("a\tb\n1\t2\n", "columns"),
        ("raw_category\tid\tnyu40id\nx\ty\tz\n", "columns"),
    ],
)
def test_a_label_table_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.tsv"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_label_table(path)


def test_submissions_hold_the_raw_id_of_each_vertex(tmp_path: Path) -> None:
    write_scannet(tmp_path / "raw")
    prepare(tmp_path / "raw", tmp_path / "out")
    for kind, expected in ((ScanNet, "1\n2\n39\n14\n1\n"), (ScanNet200, "1\n2\n22\n15\n1\n")):
        dataset = kind(tmp_path / "out")
        assert isinstance(dataset, Submits)
        scene = dataset.load("test", "scene0707_00")
        predicted = np.array([0, 1, 19, 12, 0])
        if kind is ScanNet200:
            predicted = np.array([0, 1, 19, 13, 0])
        paths = dataset.write_submission(
            tmp_path / kind.__name__, [(scene.name, scene, predicted)], split="val"
        )
        assert [path.name for path in paths] == ["scene0707_00.txt"]
        assert paths[0].read_text() == expected
        for wrong in (predicted[:3], np.full(5, -1), predicted.astype(float), np.full(5, 200)):
            with pytest.raises(DatasetError, match="scene0707_00|scene 'scene0707_00'"):
                dataset.write_submission(tmp_path / "no", [(scene.name, scene, wrong)], split="val")


def test_a_mesh_with_large_faces_numbers_is_refused(tmp_path: Path) -> None:
    write_mesh(tmp_path / "a_vh_clean_2.ply", faces=np.array([[0, 1, 99]]))
    from pointseg.files import read_faces

    with pytest.raises(CloudFileError, match="faces of vertices beyond"):
        read_faces(tmp_path / "a_vh_clean_2.ply")
