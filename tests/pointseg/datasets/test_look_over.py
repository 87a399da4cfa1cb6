"""All files are looked at before work begins: empty clouds are left out, all others of no use are reported."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointseg.cli.image_arguments import check_cameras
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.folder import dataset as folder_module
from pointseg.datasets.folder.dataset import Folder
from pointseg.datasets.index import Index, write_index
from pointseg.datasets.look_over import LISTED, Finding, leave_out, look_over
from pointseg.datasets.mixture import Mixture, SourceDataset
from pointseg.datasets.prepared import PreparedScenes
from pointseg.datasets.scan_files import check_scan
from pointseg.datasets.scene_arrays import save_scene
from pointseg.files import write_cloud
from pointseg.images.config import ImageConfig
from pointseg.loading import camera_verdict
from pointseg.scene import Scene
from pointseg.training.train import LAST, train
from tests.pointseg.datasets.test_prepared import ARRAYS, CLASSES
from tests.pointseg.tiny import RECIPE, spec

COUNT = 60


def tile(count: int = COUNT, **changes: Any) -> Scene:
    rng = np.random.default_rng(count)
    coord = rng.uniform(0, 5, (count, 3)).astype(np.float32)
    color = rng.uniform(0, 255, (count, 3)).astype(np.float32)
    fields = {"color": color, "segment": np.resize(np.array([0, 1], np.int32), count), **changes}
    return Scene(
        coord=coord, fields={k: v for k, v in fields.items() if v is not None}, name="tile"
    )


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def folder(root: Path) -> Path:
    root.mkdir(exist_ok=True)
    (root / "dataset.yaml").write_text(
        "classes: [floor, box]\nfeatures: [color]\nvoxel_m: 0.1\ncheck_scale: false",
        encoding="utf-8",
    )
    for split in ("train", "val"):
        write_cloud(root / split / "good.ply", tile())
    return root


def found_in(root: Path) -> dict[str, bool]:
    """Whether what was found is merely empty, by the name of the file."""
    findings = look_over(Folder(root), ["train", "val"])
    return {found.reason.split(": ")[0].rsplit("/")[-1]: found.is_empty for found in findings}


@pytest.mark.parametrize("small", [True, False], ids=["whole", "first points"])
def test_clouds_of_all_types(small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "SMALL", 10**9 if small else 0)
    train = folder(tmp_path) / "train"
    expected: dict[str, bool] = {}
    for suffix in (".ply", ".pcd", ".laz", ".npz", ".npy", ".txt", ""):
        write_cloud(train / f"whole-{suffix}{suffix}", tile())
        write_cloud(train / f"empty-{suffix}{suffix}", tile(0))
        expected[f"empty-{suffix}{suffix}"] = True
        if suffix not in ("", ".txt"):
            content = (train / f"whole-{suffix}{suffix}").read_bytes()
            (train / f"cut-{suffix}{suffix}").write_bytes(cut(content))
            expected[f"cut-{suffix}{suffix}"] = False
    nowhere = tile()
    nowhere.coord[:] = np.nan
    write_cloud(train / "nowhere.ply", nowhere)
    write_cloud(train / "grey.ply", tile(color=None))
    write_cloud(train / "bare.ply", tile(segment=None))
    write_cloud(train / "255.ply", tile(segment=np.full(COUNT, 255, np.int32)))
    write_cloud(train / "short", tile())
    np.save(train / "short" / "segment.npy", np.zeros(COUNT - 1, np.int32))
    (train / "words.txt").write_text("0 0 0 9 9 9 1\nno numbers\n", encoding="utf-8")
    (train / "nothing.txt").write_text("", encoding="utf-8")
    (train / "._mac.ply").write_bytes(b"\0\5\x16\7")
    expected |= {"nowhere.ply": True, "nothing.txt": True}
    expected |= dict.fromkeys(("grey.ply", "bare.ply", "255.ply", "short", "words.txt"), False)
    assert found_in(tmp_path) == expected


def test_a_link_without_a_file_is_reported(tmp_path: Path) -> None:
    try:
        (folder(tmp_path) / "train" / "link.ply").symlink_to(tmp_path / "gone.ply")
    except OSError:
        pytest.skip("no links here")
    assert found_in(tmp_path) == {"link.ply": False}


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    dataset = Folder(folder(tmp_path))
    faults = [Finding("train", f"s{n}", f"s{n}: is cut off", False) for n in range(LISTED + 2)]
    with pytest.raises(
        DatasetError, match=rf"{LISTED + 2} .*s0: is cut off; .*s49: is cut off; and 2 more"
    ):
        leave_out(dataset, [*faults, Finding("val", "good", "", True)], print)
    assert dataset.scenes("val") == ("good",) and not dataset.left_out
    said: list[str] = []
    leave_out(dataset, [Finding("val", "good", "", True)], said.append)
    assert dataset.scenes("val") == () and dataset.left_out == {("val", "good")}
    assert dataset.scenes("train") == ("good",) and "val/good" in said[0]


def test_prepared_scenes_and_mixtures(tmp_path: Path) -> None:
    names = ("good", "empty", "lost", "cut", "short", "wide")
    write_index(tmp_path, Index(dataset="scannet", splits={"train": names}, fields=("color",)))
    for name in names:
        rows = 0 if name == "empty" else None
        save_scene(tmp_path / "train" / name, {k: v[:rows] for k, v in ARRAYS.items()})
    (tmp_path / "train/lost/instance.npy").unlink()
    content = (tmp_path / "train/cut/coord.npy").read_bytes()
    (tmp_path / "train/cut/coord.npy").write_bytes(content[:-1])
    np.save(tmp_path / "train/short/segment.npy", ARRAYS["segment"][:2])
    np.save(tmp_path / "train/wide/color.npy", np.zeros((3, 4)))
    rooms = PreparedScenes(tmp_path, name="rooms", prepared_as="scannet", classes=CLASSES)
    found = {one.scene: one.is_empty for one in look_over(rooms, ["train", "train"])}
    assert found == {"empty": True, "lost": False, "cut": False, "short": False, "wide": False}
    mixture = Mixture([SourceDataset(rooms, ("train",), ())])
    mixed = {one.scene.split("/")[-1]: one.is_empty for one in look_over(mixture, ["train"])}
    assert mixed == found


@pytest.mark.parametrize(
    ("points", "labels", "error"),
    [
        (32, 8, None),
        (0, 0, "has no points"),
        (24, 8, "cut off"),
        (32, 4, "must have 8"),
        (32, None, "missing"),
    ],
)
def test_scans(points: int, labels: int | None, error: str | None, tmp_path: Path) -> None:
    scan, label = tmp_path / "0.bin", tmp_path / "0.label"
    scan.write_bytes(bytes(points))
    if labels is not None:
        label.write_bytes(bytes(labels))
    if error is None:
        check_scan(scan, label, point_bytes=16, label_bytes=4)
        return
    with pytest.raises(DatasetError, match=error):
        check_scan(scan, label, point_bytes=16, label_bytes=4)


def test_a_training_leaves_empty_tiles_out_and_goes_on_when_they_are_removed(
    tmp_path: Path, shared: Path
) -> None:
    case = shared / "cases" / "points" / "empty_tile"
    root = folder(tmp_path / "data")
    for name in ("s0.ply", "zz_empty.ply"):
        (root / "train" / name).write_bytes((case / "train" / name).read_bytes())
    (root / "dataset.yaml").write_bytes((case / "dataset.yaml").read_bytes())
    said: list[str] = []
    recipe = replace(RECIPE, epochs=1, evaluations=1, class_weights="none")
    run = spec(tmp_path / "run", recipe=recipe, dataset=Folder(root), log=said.append)
    train(run)
    assert "train/zz_empty" in said[0]
    before = (run.out / LAST).read_bytes()
    (root / "train" / "zz_empty.ply").unlink()
    train(replace(run, dataset=Folder(root), resume=True))
    assert (run.out / LAST).read_bytes() == before
    # damaged ones are refused before the run that is there is touched
    for name in ("b.ply", "c.ply"):
        (root / "train" / name).write_bytes(cut((case / "train" / "s1.ply").read_bytes()))
    with pytest.raises(DatasetError, match=r"2 of its scenes .*b\.ply: .*c\.ply: "):
        train(replace(run, dataset=Folder(root)))
    assert (run.out / LAST).read_bytes() == before


def test_cameras_are_checked_on_the_scenes_that_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cloud(folder(tmp_path) / "train" / "empty.ply", tile(0))
    dataset, checked, said = Folder(tmp_path), list[str](), list[str]()

    def verdicts(data: Folder, *_: Any) -> tuple[()]:
        checked.extend(data.scenes("train"))
        return ()

    monkeypatch.setattr(camera_verdict, "camera_verdicts", verdicts)
    asked = argparse.Namespace(
        no_camera_check=False,
        resume=False,
        dataset="folder",
        root=tmp_path,
        config=None,
        image_cache=None,
    )
    check_cameras(asked, dataset, replace(RECIPE, images=ImageConfig()), said.append)
    assert checked == ["good"] and "train/empty" in said[0]
