"""ScanNet's images: exported from streams, or taken as they were extracted; what the roof's cameras see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pointseg.datasets import open_dataset
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.scannet.prepare import prepare
from pointseg.images.projection import compute_visibility
from pointseg.images.readers.frame import Frame, ImagesError
from pointseg.images.visibility import VisibilityConfig
from tests.pointseg.datasets.official import write_scannet, write_sens
from tests.pointseg.datasets.official_images import write_depth, write_picture

# 2 m above the middle of the roof (which is the unit square), looking down.
POSE = np.array([[1, 0, 0, 0.5], [0, -1, 0, 0.5], [0, 0, -1, 2], [0, 0, 0, 1.0]])
COLOR_K = np.array([[40.0, 0, 32], [0, 40, 24], [0, 0, 1]])
LOST = np.full((4, 4), -np.inf)
SCENE = "scene0000_00"
ROOM = VisibilityConfig(near_m=1, far_m=4)


def stream(
    path: Path,
    poses: list[NDArray[Any]],
    depth_k: NDArray[Any] = COLOR_K / [[2], [2], [1]],
    depth_mm: int = 2000,
) -> None:
    rng = np.random.default_rng(0)
    frames = [
        (pose, rng.integers(0, 256, (48, 64, 3), np.uint8), np.full((24, 32), depth_mm, np.uint16))
        for pose in poses
    ]
    write_sens(path, frames, intrinsics=(COLOR_K, depth_k))


def prepared(tmp_path: Path, poses: list[NDArray[Any]] | None = None, **changes: Any) -> Path:
    write_scannet(tmp_path / "raw")
    poses = [POSE if n % 10 == 0 else LOST for n in range(21)] if poses is None else poses
    stream(tmp_path / "raw/scans" / SCENE / f"{SCENE}.sens", poses, **changes)
    prepare(tmp_path / "raw", tmp_path / "out", images=tmp_path / "raw", image_size=(480, 640))
    return tmp_path / "out"


def frames_of(root: Path, scene: str = SCENE, split: str = "train") -> tuple[Frame, ...]:
    return open_dataset("scannet", root).frames(split, scene)  # type: ignore[attr-defined, no-any-return]


def test_every_tenth_frame_becomes_files_and_sees_the_roof(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    frames = frames_of(root)
    assert [frame.name for frame in frames] == ["000000", "000010", "000020"]
    assert frames[1].camera.size == (480, 640) and frames[1].read_image().shape == (480, 640, 3)
    depth = frames[1].read_depth()
    assert depth is not None and depth.shape == (24, 32) and (depth == 2).all()
    scene = compute_visibility(
        open_dataset("scannet", root).load("train", SCENE), frames, ROOM, (480, 640)
    )
    # The corners of the square, 20 of 64 pixels across, ten times enlarged; the last vertex is far off.
    expected = [[220, 340], [420, 340], [420, 140], [220, 140], [0, 0]]
    assert scene["image_coord"][:, 0] == pytest.approx(np.array(expected))
    assert scene["image_mask"][:, 2].tolist() == [True] * 4 + [False]
    assert open_dataset("scannet200", root).frames("train", SCENE) != ()  # type: ignore[attr-defined]
    # A scan without a stream has no images; the others are not held up by it.
    assert frames_of(root, "scene0707_00", "test") == ()


def test_lost_frames_are_left_out_and_native_images_are_copied(tmp_path: Path) -> None:
    write_scannet(tmp_path / "raw")
    sens = tmp_path / "sens" / SCENE / f"{SCENE}.sens"
    sens.parent.mkdir(parents=True)
    stream(sens, [POSE if n == 20 else LOST for n in range(40)])
    done = prepare(tmp_path / "raw", tmp_path / "out", images=tmp_path / "sens", image_size=None)
    assert any("3 of 4 images have no pose" in note for note in done.notes)
    assert any("2 scans have no images: scene0011_01" in note for note in done.notes)
    (frame,) = frames_of(tmp_path / "out")
    assert frame.name == "000020" and frame.read_image().shape == (48, 64, 3)
    stream(sens, [LOST] * 3)
    done = prepare(tmp_path / "raw", tmp_path / "again", images=tmp_path / "sens")
    assert any("none of its 1 images has a pose" in note for note in done.notes)
    assert frames_of(tmp_path / "again") == ()


def test_depths_are_brought_into_the_view_of_the_colour_camera(tmp_path: Path) -> None:
    # The depth camera sees half as far to the sides: beyond, nothing is known.
    root = prepared(tmp_path, depth_k=np.array([[40.0, 0, 16], [0, 20, 12], [0, 0, 1]]))
    depth = frames_of(root)[0].read_depth()
    assert depth is not None
    assert (depth[:, :8] == 0).all() and (depth[:, 8:24] == 2).all() and (depth[:, 24:] == 0).all()


def test_images_can_be_added_later_and_then_stay(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_scannet(raw)
    prepare(raw, out)
    with pytest.raises(DatasetError, match="was prepared without images; add them with"):
        frames_of(out)
    coord = out / "train" / SCENE / "coord.npy"
    before = coord.stat().st_mtime_ns
    stream(raw / "scans" / SCENE / f"{SCENE}.sens", [POSE])
    done = prepare(raw, out, images=raw)
    assert done.kept == 2 and coord.stat().st_mtime_ns == before and len(frames_of(out)) == 1
    assert prepare(raw, out, images=raw).kept == 3
    assert prepare(raw, out).kept == 3 and len(frames_of(out)) == 1


def test_depths_in_another_unit_are_recognised_by_the_points(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    path = root / "train" / SCENE / "cameras.json"
    path.write_text(path.read_text().replace('"depth_scale": 1000.0', '"depth_scale": 1'))
    scene = open_dataset("scannet", root).load("train", SCENE)
    with pytest.raises(ImagesError, match="000000.png: .*factor of 1000"):
        compute_visibility(scene, frames_of(root), ROOM, (480, 640))


def test_a_pose_that_is_not_rigid_costs_its_scene_and_is_named(tmp_path: Path) -> None:
    write_scannet(tmp_path / "raw")
    stream(tmp_path / "raw/scans" / SCENE / f"{SCENE}.sens", [POSE * [[2], [2], [2], [1]]])
    done = prepare(tmp_path / "raw", tmp_path / "out", images=tmp_path / "raw")
    (reason,) = done.failed.values()
    assert (
        f"{SCENE}.sens: frame 0: its pose (camera to world)" in reason and "scaled by 2" in reason
    )


def extract(folder: Path, size: tuple[int, int] = (48, 64)) -> None:
    for number, pose in (("0", POSE), ("20", LOST), ("100", POSE)):
        write_picture(folder / "color" / f"{number}.jpg", *size)
        write_depth(folder / "depth" / f"{number}.png", np.full((24, 32), 2000))
        (folder / "pose").mkdir(exist_ok=True)
        np.savetxt(folder / "pose" / f"{number}.txt", pose, fmt="%.6f")
    (folder / "intrinsic").mkdir()
    matrix = np.eye(4)
    matrix[:3, :3] = COLOR_K
    np.savetxt(folder / "intrinsic" / "intrinsic_color.txt", matrix, fmt="%.6f")


def test_extracted_frames_are_used_as_they_lie(tmp_path: Path) -> None:
    write_scannet(tmp_path / "raw")
    extract(tmp_path / "frames" / SCENE)
    prepare(tmp_path / "raw", tmp_path / "out", images=tmp_path / "frames")
    frames = frames_of(tmp_path / "out")
    assert [frame.name for frame in frames] == ["0", "100"]
    assert str(frames[1].image) == str(tmp_path / "frames" / SCENE / "color" / "100.jpg")
    assert not (tmp_path / "out" / "train" / SCENE / "color").exists()
    scene = compute_visibility(
        open_dataset("scannet", tmp_path / "out").load("train", SCENE), frames, ROOM, (48, 64)
    )
    assert scene["image_mask"].any(1).tolist() == [True] * 4 + [False]


def test_extracted_frames_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_scannet(tmp_path / "raw")

    def reason(out: str) -> str:
        failed = prepare(tmp_path / "raw", tmp_path / out, images=tmp_path / "frames").failed
        return failed[f"train/{SCENE}"]

    folder = tmp_path / "frames" / SCENE
    extract(folder, size=(96, 128))
    assert "0.jpg is 128 x 96" in reason("a")
    for number in ("0", "20", "100"):
        Image.new("RGB", (64, 48)).save(folder / "color" / f"{number}.jpg")
    (folder / "pose" / "100.txt").write_text("1 2 3")
    assert "100.txt: must hold 16 numbers, a 4 x 4 matrix, holds 3" in reason("b")
    (folder / "pose" / "100.txt").write_text("1 x 3")
    assert "100.txt: must hold 16 numbers: " in reason("c")
    (folder / "pose" / "100.txt").unlink()
    assert "100.txt: is missing" in reason("d")
    with pytest.raises(DatasetError, match="neither .sens streams nor extracted frames"):
        prepare(tmp_path / "raw", tmp_path / "e", images=tmp_path / "raw")


def test_the_manifest_is_the_documented_one(tmp_path: Path) -> None:
    path = prepared(tmp_path) / "train" / SCENE / "cameras.json"
    found = json.loads(path.read_text())
    assert found["format"] == "pointseg-cameras-1" and found["depth_scale"] == 1000
    assert found["views"][0]["image"] == "color/000000.jpg" and "K" in found
