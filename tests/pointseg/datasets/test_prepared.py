"""Prepared scenes: whole or not at all, and refused where they do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pointseg.datasets.classes import ClassList
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.index import Index, find_index, read_index, stored_path, write_index
from pointseg.datasets.prepared import PreparedScenes
from pointseg.datasets.scene_arrays import CHECKSUMS, is_saved, save_scene

CLASSES = ClassList(("a", "b"), np.zeros((2, 3), np.uint8))
INDEX = Index(dataset="scannet", splits={"train": ("one",), "test": ("two",)}, fields=("color",))
ARRAYS = {
    "coord": np.arange(9, dtype=np.float32).reshape(3, 3),
    "color": np.full((3, 3), 255, np.uint8),
    "segment": np.array([0, 1, -1], np.int16),
    "instance": np.array([7, -1, 8], np.int16),
}


def written(root: Path) -> Path:
    write_index(root, INDEX)
    save_scene(root / "train" / "one", ARRAYS)
    save_scene(root / "test" / "two", {key: ARRAYS[key] for key in ("coord", "color")})
    return root


def opened(root: Path) -> PreparedScenes:
    return PreparedScenes(
        root, name="rooms", prepared_as="scannet", classes=CLASSES, unlabelled=("test",)
    )


def test_a_scene_comes_back_in_the_form_that_scenes_have(tmp_path: Path) -> None:
    dataset = opened(written(tmp_path))
    scene = dataset.load("train", "one")
    assert scene.coord.tolist() == ARRAYS["coord"].tolist()
    assert scene["color"].dtype == np.float32 and scene["color"].max() == 255
    assert scene["segment"].tolist() == [0, 1, -1] and scene["instance"].tolist() == [7, -1, 8]
    assert set(dataset.load("test", "two").fields) == {"color"}


def test_an_index_reads_as_it_was_written(tmp_path: Path) -> None:
    index = replace(INDEX, options={"align": True}, failed={"train/x": "why"}, source="a/b")
    write_index(tmp_path, index)
    assert read_index(tmp_path, "scannet") == index
    assert find_index(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:40], "is damaged"),
        (lambda text: "[]", "is damaged"),
        (lambda text: text.replace("dataset-1", "dataset-0"), "'format' must be"),
        (lambda text: text.replace('"failed"', '"fails"'), "unknown keys: fails"),
        (lambda text: text.replace('"splits"', '"complete"'), "is damaged"),
        (lambda text: text.replace("scannet", "s3dis"), "holds 's3dis'"),
        (
            lambda text: text.replace('"complete": true', '"complete": false'),
            "interrupted; go on with",
        ),
    ],
)
def test_another_index_is_refused(tmp_path: Path, change, message: str) -> None:
    write_index(tmp_path, INDEX)
    path = tmp_path / "dataset.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(DatasetError, match=message):
        read_index(tmp_path, "scannet")


def test_a_folder_that_was_not_prepared_says_how_to(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="pointseg-prepare --dataset scannet --source"):
        opened(tmp_path)


def test_unknown_splits_and_scenes_are_refused(tmp_path: Path) -> None:
    dataset = opened(written(tmp_path))
    with pytest.raises(DatasetError, match="no split 'val'"):
        dataset.scenes("val")
    with pytest.raises(DatasetError, match="no scene 'two'"):
        dataset.load("train", "two")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("coord", np.zeros((3, 2), np.float32), r"must hold \(3, 3\) numbers"),
        ("coord", np.zeros(3, np.float32), r"must hold \(3, 3\) numbers"),
        ("color", np.zeros((2, 3), np.uint8), r"must hold \(3, 3\) numbers"),
        ("segment", np.zeros(2, np.int16), r"must hold \(3,\) whole numbers"),
        ("segment", np.zeros(3, np.float32), r"must hold \(3,\) whole numbers"),
        ("segment", np.array([0, 2, 7]), "labels must be -1 to 1, 2 points have 2, 7"),
        ("instance", np.zeros((3, 1), np.int16), r"must hold \(3,\) whole numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, values: np.ndarray, message: str
) -> None:
    written(tmp_path)
    (tmp_path / "train" / "one" / CHECKSUMS).unlink()
    np.save(tmp_path / "train" / "one" / f"{name}.npy", values)
    with pytest.raises(DatasetError, match=message):
        opened(tmp_path).load("train", "one")


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    dataset, path = opened(written(tmp_path)), tmp_path / "train" / "one" / "segment.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DatasetError, match="segment.npy: .*cut off.*prepare the dataset again"):
        dataset.load("train", "one")
    path.unlink()
    with pytest.raises(DatasetError, match="segment.npy: is missing; prepare the dataset again"):
        dataset.load("train", "one")


def test_whether_a_scene_is_whole(tmp_path: Path) -> None:
    folder = written(tmp_path) / "train" / "one"
    assert is_saved(folder, ARRAYS)
    assert not is_saved(folder, [*ARRAYS, "normal"])
    path = folder / "coord.npy"
    path.write_bytes(path.read_bytes()[:-4])
    assert not is_saved(folder, ["coord"])
    path.write_bytes(b"")
    assert not is_saved(folder, ["coord"])


def test_what_has_changed_on_the_disk_is_refused_and_made_again(tmp_path: Path) -> None:
    dataset = opened(written(tmp_path))
    path = tmp_path / "train" / "one" / "segment.npy"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1  # class -1 becomes -2's neighbour; size and header stay
    path.write_bytes(content)
    assert not is_saved(path.parent, ARRAYS) and is_saved(path.parent, ["coord"])
    with pytest.raises(DatasetError, match=r"segment\.npy: .*checksum.* prepare the dataset again"):
        dataset.load("train", "one")
    np.save(path, ARRAYS["segment"])
    assert is_saved(path.parent, ARRAYS)
    (path.parent / CHECKSUMS).unlink()  # as of older versions
    path.write_bytes(content[:-2] + b"\1\0")
    assert dataset.load("train", "one")["segment"].tolist() == [0, 1, 1]


def test_a_full_disk_leaves_no_half_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = np.save

    def full(stream, values, **options) -> None:
        if values.dtype == np.int16:
            raise OSError(28, "No space left on device")
        save(stream, values, **options)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_scene(tmp_path / "train" / "one", ARRAYS)
    assert list((tmp_path / "train").iterdir()) == []


def test_saving_replaces_a_scene_and_what_a_killed_process_left(tmp_path: Path) -> None:
    folder = written(tmp_path) / "train" / "one"
    (folder / "old.npy").touch()
    left = tmp_path / "train" / ".1234abcd.part.one"
    other = tmp_path / "train" / ".1234abcd.part.one_more"
    left.mkdir()
    other.mkdir()
    save_scene(folder, ARRAYS)
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [CHECKSUMS, *(f"{key}.npy" for key in ARRAYS)]
    )
    assert not left.exists() and other.exists()


def test_official_files_below_the_index_are_named_relative_to_it(tmp_path: Path) -> None:
    assert stored_path(tmp_path, tmp_path) == "."
    assert stored_path(tmp_path / "dataset", tmp_path) == "dataset"
    assert stored_path(tmp_path / "raw", tmp_path / "out") == str((tmp_path / "raw").resolve())
