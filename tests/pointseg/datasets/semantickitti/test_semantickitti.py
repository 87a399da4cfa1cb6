"""SemanticKITTI: class maps, scans in the official tree, calibration, one real scan, submissions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pointseg.datasets import open_dataset
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.labels import LabelMap
from pointseg.datasets.semantickitti.dataset import (
    CLASS_SHARES,
    CLASSES,
    LABEL_MAP,
    OFFICIAL_COUNTS,
    RAW_IDS,
    SPLITS,
    SemanticKITTI,
    read_calibration,
)
from pointseg.datasets.semantickitti.prepare import prepare
from pointseg.datasets.submission import Submits
from tests.pointseg.datasets.official import write_kitti, write_kitti_scan

# -ln of the class shares as the method's authors publish it.
WEIGHTS = [
    3.1557, 8.7029, 7.8281, 6.1354, 6.3161, 7.9937, 8.9704, 10.1922, 1.6155, 4.2187, 1.9385, 5.5455,
    2.0198, 2.6261, 1.3212, 5.1102, 2.5492, 5.8585, 7.3929,
]  # fmt: skip


def test_the_maps_are_the_benchmarks() -> None:
    assert len(CLASSES) == len(RAW_IDS) == len(CLASS_SHARES) == 19
    assert LABEL_MAP(np.array(RAW_IDS, np.uint32), "all").tolist() == list(range(19))
    moving = {252: "car", 253: "bicyclist", 254: "person", 255: "motorcyclist", 256: "other-vehicle",
              257: "other-vehicle", 258: "truck", 259: "other-vehicle", 60: "road"}  # fmt: skip
    for raw, name in moving.items():
        assert CLASSES.names[LABEL_MAP.table[raw]] == name
    assert {raw for raw, index in LABEL_MAP.table.items() if index == -1} == {0, 1, 52, 99}
    assert len(LABEL_MAP.table) == 34
    assert -np.log(CLASS_SHARES) == pytest.approx(WEIGHTS, abs=0.02)
    assert sorted(sum(SPLITS.values(), ())) == [f"{n:02d}" for n in range(22)]
    assert sum(OFFICIAL_COUNTS.values()) == 43_552


def test_ids_that_are_not_official_are_counted() -> None:
    with pytest.raises(
        DatasetError, match=r"scan: 3 points have unknown ids .*: 2 \(1\), 300 \(2\)"
    ):
        LABEL_MAP(np.array([300, 0, 2, 300], np.uint32), "scan")
    with pytest.raises(ValueError, match="'table' must map"):
        LabelMap("x", {})


def test_scans_are_read_from_the_official_tree(tmp_path: Path) -> None:
    write_kitti(tmp_path / "raw")
    reported: list[tuple[int, int, int]] = []
    done = prepare(tmp_path / "raw", tmp_path / "out", report=lambda *n: reported.append(n))
    assert done.splits == {
        "train": ("00/000000", "00/000001"),
        "val": ("08/000000",),
        "test": ("11/000000",),
    }
    assert done.failed == {} and reported[-1] == (22, 0, 22)
    assert "train: 2 of the official 19130 scans are ready" in done.notes
    assert "train: sequence 01 is missing" in done.notes

    dataset = open_dataset("semantickitti", tmp_path / "out")
    assert dataset.fields == {"strength"} and dataset.splits() == ("train", "val", "test")
    scan = dataset.load("train", "00/000000")
    assert scan.coord.tolist() == [[0, 1, 2], [4, 5, 6], [8, 9, 10], [12, 13, 14]]
    assert scan["strength"][:, 0] == pytest.approx(np.linspace(0, 1, 4))
    assert scan["segment"].tolist() == [8, 0, -1, 0]
    assert scan["instance"].tolist() == [-1, 3, -1, 7000]
    assert set(scan.fields) == {"strength", "segment", "instance"}
    test = dataset.load("test", "11/000000")
    assert len(test) == 4 and set(test.fields) == {"strength"}


def test_an_index_inside_the_official_tree_moves_with_it(tmp_path: Path) -> None:
    write_kitti(tmp_path / "a")
    prepare(tmp_path / "a", tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert len(SemanticKITTI(tmp_path / "b").load("val", "08/000000")) == 4


def test_official_files_that_are_gone_are_an_error(tmp_path: Path) -> None:
    write_kitti(tmp_path / "raw")
    prepare(tmp_path / "raw", tmp_path / "out")
    (tmp_path / "raw").rename(tmp_path / "moved")
    with pytest.raises(DatasetError, match="prepare it again"):
        SemanticKITTI(tmp_path / "out")


def test_calibration(tmp_path: Path) -> None:
    sequences = write_kitti(tmp_path)
    prepare(tmp_path, tmp_path)
    dataset = SemanticKITTI(tmp_path)
    intrinsic, pose = dataset.calibration("00").camera(2)
    assert intrinsic.tolist() == [[700, 0, 600], [0, 700, 180], [0, 0, 1]]
    # A point 10 m ahead, 1 m to the left and 2 m up: scanner x, y, z -> camera -y, -z - 0.08, x - 0.27.
    point = np.array([10.0, 1, 2, 1])
    shift = np.array([(44.85 - 600 * 0.0027) / 700, (0.2163 - 180 * 0.0027) / 700, 0.0027])
    assert (pose @ point)[:3] == pytest.approx(np.array([-1, -2.08, 9.73]) + shift)
    projected = dataset.calibration("00").projections["P2"] @ [-1, -2.08, 9.73, 1]
    assert intrinsic @ (pose @ point)[:3] == pytest.approx(projected)
    with pytest.raises(DatasetError, match=r"08.calib.txt: is missing"):
        dataset.calibration("08")
    calib = sequences / "00" / "calib.txt"
    for text, message in (
        ("P0: 1 2\n", "must have 12 finite numbers, got 2"),
        ("P0: a\n", "no number"),
        ("", "lacks P0, P1, P2, P3, Tr"),
    ):
        calib.write_text(text)
        with pytest.raises(DatasetError, match=message):
            read_calibration(calib)
    calib.write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError, match="is not text"):
        read_calibration(calib)


def test_missing_labels_are_an_error_and_no_class(tmp_path: Path) -> None:
    sequences = write_kitti(tmp_path)
    write_kitti_scan(sequences, "08", "000001", None)
    write_kitti_scan(sequences, "08", "000002", [40])
    write_kitti_scan(sequences, "08", "000003", [40] * 4)
    (sequences / "08" / "velodyne" / "000003.bin").write_bytes(b"12345")
    done = prepare(tmp_path, tmp_path / "out")
    assert done.splits["val"] == ("08/000000",)
    problems = [done.failed[f"val/08/00000{n}"] for n in (1, 2, 3)]
    for problem, message in zip(
        problems,
        ("000001.label: is missing", "must have 16 bytes", "000003.bin: is cut off"),
        strict=True,
    ):
        assert message in problem
    found = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert len(found["failed"]) == 3


def test_files_that_changed_since_are_refused(tmp_path: Path) -> None:
    sequences = write_kitti(tmp_path)
    prepare(tmp_path, tmp_path)
    dataset = SemanticKITTI(tmp_path)
    labels = sequences / "08" / "labels" / "000000.label"
    labels.write_bytes(labels.read_bytes()[:-4])
    for read in (dataset.load, dataset.look_at):
        with pytest.raises(DatasetError, match="000000.label: must have 16 bytes"):
            read("val", "08/000000")
    np.array([1000, 40, 40, 7], "<u4").tofile(labels)
    with pytest.raises(
        DatasetError, match=r"000000.label: 2 points have unknown ids .*: 7 \(1\), 1000 \(1\)"
    ):
        dataset.load("val", "08/000000")
    labels.unlink()
    with pytest.raises(DatasetError, match="000000.label: is missing"):
        dataset.load("val", "08/000000")
    (sequences / "08" / "velodyne" / "000000.bin").unlink()
    with pytest.raises(DatasetError, match="000000.bin: is missing"):
        dataset.load("val", "08/000000")
    with pytest.raises(DatasetError, match="no scene '08/000009'"):
        dataset.load("val", "08/000009")
    with pytest.raises(DatasetError, match="no split 'dev'"):
        dataset.scenes("dev")


def test_what_is_no_semantickitti_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="with sequences/00 and so on"):
        prepare(tmp_path, tmp_path / "out")
    (tmp_path / "sequences" / "00").mkdir(parents=True)
    with pytest.raises(DatasetError, match="hold no scans"):
        prepare(tmp_path, tmp_path / "out")


def test_submissions_hold_raw_ids(tmp_path: Path) -> None:
    write_kitti(tmp_path)
    prepare(tmp_path, tmp_path)
    dataset = SemanticKITTI(tmp_path)
    assert isinstance(dataset, Submits)
    scan = dataset.load("test", "11/000000")
    paths = dataset.write_submission(
        tmp_path / "sub", [("11/000000", scan, np.array([0, 18, 7, 8]))], split="test"
    )
    assert paths == [tmp_path / "sub" / "sequences" / "11" / "predictions" / "000000.label"]
    assert np.fromfile(paths[0], np.uint32).tolist() == [10, 81, 32, 40]
    with pytest.raises(DatasetError, match="needs a class for each of its 4 points"):
        dataset.write_submission(
            tmp_path / "sub", [("11/000000", scan, np.zeros(3, int))], split="test"
        )


def test_a_real_scan(tmp_path: Path, shared: Path) -> None:
    real = shared / "data" / "points" / "semantickitti_scan"
    folder = tmp_path / "sequences" / "08"
    (folder / "velodyne").mkdir(parents=True)
    (folder / "labels").mkdir()
    shutil.copy(real / "000000.bin", folder / "velodyne")
    shutil.copy(real / "000000.label", folder / "labels")
    prepare(tmp_path, tmp_path)
    scan = SemanticKITTI(tmp_path).load("val", "08/000000")
    assert len(scan) == 123_389
    assert 0 <= scan["strength"].min() and scan["strength"].max() <= 1
    raw = np.fromfile(real / "000000.label", "<u4") & 0xFFFF
    assert len(np.unique(raw)) == 19
    counts = np.bincount(scan["segment"] + 1, minlength=20).tolist()
    found = dict(zip(("ignored", *CLASSES.names), counts, strict=True))
    assert {name: count for name, count in found.items() if count} == {
        "ignored": 4458 + 5 + 809 + 1652, "car": 544 + 990, "bicycle": 20, "person": 23 + 138,
        "road": 20_975, "parking": 84, "sidewalk": 30_092, "building": 2126, "fence": 531,
        "vegetation": 24_514, "trunk": 3978, "terrain": 30_925, "pole": 413, "traffic-sign": 1112,
    }  # fmt: skip
