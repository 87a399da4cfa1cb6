"""nuScenes-lidarseg: maps, splits, tables read directly, keyframes, submissions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pointseg.datasets import open_dataset
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.nuscenes import tables
from pointseg.datasets.nuscenes.dataset import (
    CLASSES,
    LABEL_MAP,
    MINI_SPLITS,
    RAW_NAMES,
    VAL_SCENES,
    NuScenes,
    split_of,
)
from pointseg.datasets.nuscenes.prepare import prepare
from pointseg.datasets.nuscenes.tables import read_keyframes, read_table
from pointseg.datasets.submission import Submits
from tests.pointseg.datasets.official import write_nuscenes


def test_the_map_is_the_challenges() -> None:
    assert len(CLASSES) == 16 and len(RAW_NAMES) == 32
    by_name = {RAW_NAMES[raw]: index for raw, index in LABEL_MAP.table.items()}
    expected = {
        "movable_object.barrier": "barrier", "vehicle.bicycle": "bicycle", "vehicle.bus.bendy": "bus",
        "vehicle.bus.rigid": "bus", "vehicle.car": "car", "vehicle.construction": "construction_vehicle",
        "vehicle.motorcycle": "motorcycle", "human.pedestrian.adult": "pedestrian",
        "human.pedestrian.child": "pedestrian", "human.pedestrian.construction_worker": "pedestrian",
        "human.pedestrian.police_officer": "pedestrian", "movable_object.trafficcone": "traffic_cone",
        "vehicle.trailer": "trailer", "vehicle.truck": "truck",
        "flat.driveable_surface": "driveable_surface", "flat.other": "other_flat",
        "flat.sidewalk": "sidewalk", "flat.terrain": "terrain", "static.manmade": "manmade",
        "static.vegetation": "vegetation",
    }  # fmt: skip
    used = {name: CLASSES.names[index] for name, index in by_name.items() if index >= 0}
    assert used == expected


def test_splits_are_the_official_ones() -> None:
    assert len(VAL_SCENES) == 150
    assert {split: len(scenes) for split, scenes in MINI_SPLITS.items()} == {"train": 8, "val": 2}
    assert (
        split_of("v1.0-trainval", "scene-0003") == split_of("v1.0-trainval", "scene-1073") == "val"
    )
    assert split_of("v1.0-trainval", "scene-0061") == "train"
    assert split_of("v1.0-mini", "scene-0061") == "train"
    assert split_of("v1.0-mini", "scene-0103") == "val"
    assert split_of("v1.0-mini", "scene-0001") is None
    assert split_of("v1.0-test", "scene-0077") == "test"
    assert split_of("v1.0-trainval", "something") is None


def test_keyframes_come_by_scene_and_time_and_sweeps_are_left_out(tmp_path: Path) -> None:
    tokens = write_nuscenes(tmp_path)
    keyframes = read_keyframes(tmp_path, "v1.0-mini")
    assert [keyframe.token for keyframe in keyframes] == [
        tokens[f"scene-{scene} {number}"] for scene in ("0061", "0103") for number in (0, 1)
    ]
    first = keyframes[0]
    assert (first.scene, first.timestamp, first.sample) == (
        "scene-0061",
        1000,
        "sample scene-0061 0",
    )
    assert (first.calibrated_sensor, first.ego_pose) == ("mounted lidar", first.token)


def test_a_keyframe_goes_from_the_official_files_to_a_scene(tmp_path: Path) -> None:
    tokens = write_nuscenes(tmp_path / "raw")
    reported: list[tuple[int, int, int]] = []
    done = prepare(tmp_path / "raw", tmp_path / "out", report=lambda *n: reported.append(n))
    assert reported == [(4, 0, 4)] and done.notes == () and done.failed == {}
    dataset = open_dataset("nuscenes", tmp_path / "out")
    assert dataset.splits() == ("train", "val") and dataset.fields == {"strength"}
    assert dataset.scenes("val") == (tokens["scene-0103 0"], tokens["scene-0103 1"])
    sweep = dataset.load("val", tokens["scene-0103 0"])
    assert sweep.coord.tolist() == [[0, 1, 2], [5, 6, 7], [10, 11, 12]]
    assert sweep["strength"][:, 0].tolist() == [0, 0.5, 1]
    assert sweep["segment"].tolist() == [-1, 3, 15]
    assert set(sweep.fields) == {"strength", "segment"}
    with pytest.raises(DatasetError, match="split 'train' has no scene"):
        dataset.load("train", tokens["scene-0103 0"])
    with pytest.raises(DatasetError, match="no split 'test'"):
        dataset.scenes("test")


def test_trainval_and_test_come_together(tmp_path: Path) -> None:
    write_nuscenes(tmp_path, version="v1.0-trainval", scenes=("scene-0001", "scene-0003"))
    write_nuscenes(tmp_path, version="v1.0-test", scenes=("scene-0077",), lidarseg=False)
    write_nuscenes(tmp_path, version="v1.0-mini", scenes=("scene-0061", "scene-0002"))
    done = prepare(tmp_path, tmp_path / "whole")
    assert {split: len(tokens) for split, tokens in done.splits.items()} == {
        "train": 2,
        "val": 2,
        "test": 2,
    }
    assert "val: 2 of the official 6019 keyframes are ready" in done.notes
    dataset = NuScenes(tmp_path / "whole")
    test = dataset.load("test", dataset.scenes("test")[0])
    assert len(test) == 3 and "segment" not in test
    mini = prepare(tmp_path, tmp_path / "mini", version="v1.0-mini")
    assert list(mini.splits) == ["train"]
    assert mini.notes == (
        "v1.0-mini: left out scenes that are not in the official lists: scene-0002",
    )
    with pytest.raises(DatasetError, match="was prepared with versions"):
        prepare(tmp_path, tmp_path / "mini")


def test_missing_lidarseg_says_what_to_download(tmp_path: Path) -> None:
    write_nuscenes(tmp_path, lidarseg=False)
    with pytest.raises(
        DatasetError, match="no lidarseg.json.*download nuScenes-lidarseg for v1.0-mini"
    ):
        prepare(tmp_path, tmp_path / "out")


def test_bad_files_cost_only_their_keyframe(tmp_path: Path) -> None:
    tokens = write_nuscenes(tmp_path)
    points, labels = tmp_path / "samples" / "LIDAR_TOP", tmp_path / "lidarseg" / "v1.0-mini"
    first, second, third, fourth = tokens.values()
    (points / f"{first}.pcd.bin").unlink()
    (points / f"{second}.pcd.bin").write_bytes(b"12345")
    (labels / f"{third}_lidarseg.bin").unlink()
    (labels / f"{fourth}_lidarseg.bin").write_bytes(b"12345")
    done = prepare(tmp_path, tmp_path / "out")
    assert set(done.splits.values()) == {()}
    reasons = {name.partition("/")[2]: reason for name, reason in done.failed.items()}
    assert "is missing" in reasons[first] and "is cut off" in reasons[second]
    assert "_lidarseg.bin: is missing" in reasons[third]
    assert "must have 3 bytes" in reasons[fourth]


def test_keyframes_without_an_entry_in_lidarseg_are_reported(tmp_path: Path) -> None:
    tokens = write_nuscenes(tmp_path)
    path = tmp_path / "v1.0-mini" / "lidarseg.json"
    path.write_text(json.dumps(json.loads(path.read_text())[1:]))
    done = prepare(tmp_path, tmp_path / "out")
    assert list(done.failed) == [f"train/{tokens['scene-0061 1']}"]
    assert "has no labels" in done.failed[f"train/{tokens['scene-0061 1']}"]


def test_files_that_changed_since_are_refused(tmp_path: Path) -> None:
    tokens = write_nuscenes(tmp_path)
    prepare(tmp_path, tmp_path)
    dataset, token = NuScenes(tmp_path), tokens["scene-0061 0"]
    labels = tmp_path / "lidarseg" / "v1.0-mini" / f"{token}_lidarseg.bin"
    labels.write_bytes(bytes([32, 40, 0]))
    with pytest.raises(DatasetError, match=r"2 points have unknown ids .*: 32 \(1\), 40 \(1\)"):
        dataset.load("train", token)
    labels.write_bytes(b"12")
    for read in (dataset.load, dataset.look_at):
        with pytest.raises(DatasetError, match="must have 3 bytes"):
            read("train", token)
    labels.unlink()
    with pytest.raises(DatasetError, match="_lidarseg.bin: is missing"):
        dataset.load("train", token)
    (tmp_path / "samples" / "LIDAR_TOP" / f"{token}.pcd.bin").unlink()
    with pytest.raises(DatasetError, match="pcd.bin: is missing"):
        dataset.load("train", token)
    (tmp_path / "samples").rename(tmp_path / "gone")
    with pytest.raises(DatasetError, match="prepare it again"):
        NuScenes(tmp_path)


def test_what_is_no_nuscenes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="must hold the tables in v1.0-trainval or"):
        prepare(tmp_path, tmp_path / "out")
    write_nuscenes(tmp_path)
    with pytest.raises(DatasetError, match="in v1.0-test, holds v1.0-mini"):
        prepare(tmp_path, tmp_path / "out", version="v1.0-test")
    with pytest.raises(DatasetError, match="version must be one of"):
        prepare(tmp_path, tmp_path / "out", version="mini")
    (tmp_path / "samples").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="has no 'samples'"):
        prepare(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("number", [3, 99, -1])
def test_categories_that_mean_something_else_are_refused(tmp_path: Path, number: int) -> None:
    write_nuscenes(tmp_path)
    rows = [{"token": "c", "name": "vehicle.car", "index": number}]
    (tmp_path / "v1.0-mini" / "category.json").write_text(json.dumps(rows))
    with pytest.raises(DatasetError, match=f"label {number} must be .*is 'vehicle.car'"):
        prepare(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 22])
def test_tables_are_read_row_by_row_whatever_the_chunks(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"a": number, "text": '}],[{"\\ ä', "list": [1, {"b": None}]} for number in range(20)]
    monkeypatch.setattr(tables, "CHUNK", chunk)
    for indent in (None, 0, 2):
        text = json.dumps(rows, indent=indent, ensure_ascii=False)
        (tmp_path / "t.json").write_text(text + "\n", encoding="utf-8")
        assert list(read_table(tmp_path / "t.json", "a")) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cut off or damaged"),
        ('[{"a": 1}, {"a"', "cut off or damaged"),
        ('[{"a": 1}', "cut off or damaged"),
        ("[{]", "cut off or damaged"),
        ('{"a": 1}', "must hold a list of objects"),
        ("[3]", "must hold a list of objects"),
        ('[{"b": 1}]', "row 0 lacks a"),
        ("[]", "holds no rows"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        list(read_table(tmp_path / "t.json", "a"))


def test_rows_without_an_end_and_bytes_that_are_no_text_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LONGEST_ROW", 100)
    monkeypatch.setattr(tables, "CHUNK", 10)
    (tmp_path / "t.json").write_text('[{"a": "' + "x" * 1000 + '"}]')
    with pytest.raises(DatasetError, match="cut off or damaged"):
        list(read_table(tmp_path / "t.json"))
    (tmp_path / "t.json").write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(DatasetError, match="is damaged"):
        list(read_table(tmp_path / "t.json"))
    with pytest.raises(DatasetError, match="unpack nuScenes' metadata"):
        list(read_table(tmp_path / "no.json"))


def test_tables_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    write_nuscenes(tmp_path)
    (tmp_path / "v1.0-mini" / "sample.json").write_text('[{"token": "x", "scene_token": "y"}]')
    with pytest.raises(DatasetError, match="belongs to no sample and scene"):
        read_keyframes(tmp_path, "v1.0-mini")


def test_submissions_hold_class_plus_one_and_say_what_was_used(tmp_path: Path) -> None:
    tokens = write_nuscenes(tmp_path)
    prepare(tmp_path, tmp_path)
    dataset, token = NuScenes(tmp_path), tokens["scene-0103 1"]
    assert isinstance(dataset, Submits)
    sweep = dataset.load("val", token)
    results = [(token, sweep, np.array([0, 15, 3]))]
    paths = dataset.write_submission(tmp_path / "sub", results, split="val", use_camera=True)
    names = [path.relative_to(tmp_path / "sub").as_posix() for path in paths]
    assert names == [f"lidarseg/val/{token}_lidarseg.bin", "val/submission.json"]
    assert paths[0].read_bytes() == bytes([1, 16, 4])
    meta = json.loads(paths[1].read_text())["meta"]
    assert meta["use_camera"] and meta["use_lidar"] and not meta["use_external"]
    assert set(meta) == {"use_camera", "use_lidar", "use_radar", "use_map", "use_external"}
    with pytest.raises(DatasetError, match="must be 0 to 15"):
        dataset.write_submission(
            tmp_path / "sub", [(token, sweep, np.array([0, 16, 3]))], split="val"
        )


def test_a_real_sweep(tmp_path: Path, shared: Path) -> None:
    real = next((shared / "data" / "points" / "nuscenes_sample").glob("*.pcd.bin"))
    tokens = write_nuscenes(tmp_path, points=34_688)
    token = tokens["scene-0061 0"]
    (tmp_path / "samples" / "LIDAR_TOP" / f"{token}.pcd.bin").write_bytes(real.read_bytes())
    prepare(tmp_path, tmp_path)
    sweep = NuScenes(tmp_path).load("train", token)
    assert len(sweep) == 34_688
    raw = np.fromfile(real, "<f4").reshape(-1, 5)
    assert sweep.coord.tolist() == raw[:, :3].tolist()
    assert sweep["strength"][:, 0] == pytest.approx(raw[:, 3] / 255)
    assert 0 <= sweep["strength"].min() <= sweep["strength"].max() <= 1
