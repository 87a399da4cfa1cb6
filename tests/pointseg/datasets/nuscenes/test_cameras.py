"""nuScenes' cameras: from the tables to frames, each car pose at its own time; a real keyframe."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pointseg.datasets import open_dataset
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.nuscenes.cameras import CHANNELS
from pointseg.datasets.nuscenes.prepare import prepare
from pointseg.images.projection import compute_visibility
from pointseg.images.readers.frame import ImagesError
from pointseg.images.visibility import VisibilityConfig
from tests.pointseg.datasets.official import write_nuscenes
from tests.pointseg.datasets.official_images import add_cameras, quaternion, turn_z

VERSION = "v1.0-mini"
K = np.array([[1000.0, 0, 800], [0, 1000, 450], [0, 0, 1]])
AHEAD = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # camera on the car


def write(root: Path) -> dict[str, str]:
    """The car drives 1 m ahead before its cameras fire; these look 60 degrees further round each."""
    tokens = write_nuscenes(root)
    cameras = {
        channel: (K, turn_z(60 * number, (0, 0, 1)) @ AHEAD, turn_z(0, (101, 0, 0)), "none.jpg")
        for number, channel in reversed(list(enumerate(CHANNELS)))
    }
    add_cameras(
        root, VERSION, lidar=(turn_z(0, (0, 0, 1)), turn_z(0, (100, 0, 0))), cameras=cameras
    )
    return tokens


def test_quaternions_for_tables_turn_back() -> None:
    from pointseg.images.readers.colmap import rotation

    for matrix in (np.eye(3), turn_z(123)[:3, :3], AHEAD[:3, :3] @ turn_z(10)[:3, :3]):
        assert rotation(quaternion(matrix), "x") == pytest.approx(matrix)


def test_six_cameras_in_the_official_order_with_their_own_car_poses(tmp_path: Path) -> None:
    tokens = write(tmp_path)
    prepare(tmp_path, tmp_path, images=tmp_path)
    dataset = open_dataset("nuscenes", tmp_path)
    token = tokens["scene-0103 0"]
    frames = dataset.frames("val", token)  # type: ignore[attr-defined]
    assert tuple(frame.name for frame in frames) == CHANNELS
    assert all(frame.camera.size == (900, 1600) and frame.depth is None for frame in frames)
    # 11 m before the scanner is 10 m before the camera, which the car has carried 1 m further.
    front = frames[0].camera
    uv, distance = front.project(torch.tensor([[11.0, 0, 0], [11, 1, 0], [11, 0, 1]]))
    assert distance.tolist() == pytest.approx([10, 10, 10])
    assert uv.numpy() == pytest.approx(np.array([[800, 450], [700, 450], [800, 350]]))
    assert front.centre.tolist() == pytest.approx([1, 0, 0])
    with pytest.raises(ImagesError, match="none.jpg: this image is missing"):
        frames[0].read_image()


def test_prepared_without_images_says_so_and_images_once_prepared_stay(tmp_path: Path) -> None:
    tokens = write(tmp_path)
    prepare(tmp_path, tmp_path)
    token = tokens["scene-0061 1"]
    with pytest.raises(DatasetError, match="prepared without images.*--images"):
        open_dataset("nuscenes", tmp_path).frames("train", token)  # type: ignore[attr-defined]
    prepare(tmp_path, tmp_path, images=tmp_path)
    prepare(tmp_path, tmp_path)
    assert len(open_dataset("nuscenes", tmp_path).frames("train", token)) == 6  # type: ignore[attr-defined]


def test_what_is_missing_or_damaged_is_reported(tmp_path: Path) -> None:
    tokens = write(tmp_path)
    with pytest.raises(DatasetError, match="must hold the images in samples/CAM_FRONT"):
        prepare(tmp_path, tmp_path, images=tmp_path / "v1.0-mini")
    table = tmp_path / VERSION / "sample_data.json"
    rows = json.loads(table.read_text())
    token = tokens["scene-0061 0"]
    table.write_text(json.dumps([row for row in rows if row["token"] != f"CAM_BACK {token}"]))
    done = prepare(tmp_path, tmp_path, images=tmp_path)
    assert any("1 keyframes lack images" in note and "CAM_BACK" in note for note in done.notes)
    dataset = open_dataset("nuscenes", tmp_path)
    assert len(dataset.frames("train", token)) == 5  # type: ignore[attr-defined]
    path = tmp_path / "cameras" / "scene-0061.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DatasetError, match="scene-0061.json: is damaged.*prepare"):
        dataset.frames("train", token)  # type: ignore[attr-defined]
    path.unlink()
    with pytest.raises(DatasetError, match="scene-0061.json: is missing; prepare"):
        dataset.frames("train", token)  # type: ignore[attr-defined]
    poses = tmp_path / VERSION / "ego_pose.json"
    poses.write_text(json.dumps(json.loads(poses.read_text())[:3]))
    with pytest.raises(DatasetError, match="ego_pose.json: lacks .* poses"):
        prepare(tmp_path, tmp_path, images=tmp_path)


def test_a_real_keyframe_is_seen_as_it_must_be(tmp_path: Path, shared: Path) -> None:
    sample = shared / "data" / "points" / "nuscenes_sample"
    info = pickle.loads(next(sample.glob("*.pkl")).read_bytes())["data_list"][0]
    lidar, car = np.array(info["lidar_points"]["lidar2ego"]), np.array(info["ego2global"])
    cameras = {}
    for channel, found in info["images"].items():
        on_car, seen = np.array(found["cam2ego"]), np.array(found["lidar2cam"])
        # What the tables hold: where the car was when the camera fired.
        then = car @ lidar @ np.linalg.inv(seen) @ np.linalg.inv(on_car)
        cameras[channel] = (found["cam2img"], on_car, then, f"samples/{channel}/0.jpg")
    tokens = write_nuscenes(tmp_path, points=34_688)
    add_cameras(tmp_path, VERSION, lidar=(lidar, car), cameras=cameras)
    for channel, found in info["images"].items():
        shutil.copy(sample / found["img_path"], tmp_path / "samples" / channel / "0.jpg")
    token = tokens["scene-0061 0"]
    points = tmp_path / "samples" / "LIDAR_TOP" / f"{token}.pcd.bin"
    shutil.copy(sample / info["lidar_points"]["lidar_path"], points)
    prepare(tmp_path, tmp_path, images=tmp_path)
    dataset = open_dataset("nuscenes", tmp_path)
    frames = dataset.frames("train", token)  # type: ignore[attr-defined]
    assert frames[3].read_image().shape == (900, 1600, 3)
    scene = compute_visibility(dataset.load("train", token), frames, VisibilityConfig(), (384, 672))
    shares = 100 * scene["image_mask"].mean(0)
    assert shares == pytest.approx([8.8, 8.9, 10.7, 13.9, 11.8, 9.7], abs=0.06)
    assert 100 * scene["image_mask"].any(1).mean() == pytest.approx(58.3, abs=0.06)
