"""SemanticKITTI's image: camera 2 through calib.txt; two real frames of KITTI in the odometry layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pointseg.datasets import open_dataset
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.semantickitti.dataset import read_calibration
from pointseg.datasets.semantickitti.prepare import prepare
from pointseg.images.projection import compute_visibility
from pointseg.images.readers.camera_files import read_cameras
from pointseg.images.readers.frame import Frame, ImagesError
from pointseg.images.visibility import VisibilityConfig
from tests.pointseg.datasets.official import write_kitti
from tests.pointseg.datasets.official_images import write_picture


def frames_of(root: Path, scan: str, split: str = "train") -> tuple[Frame, ...]:
    return open_dataset("semantickitti", root).frames(split, scan)  # type: ignore[attr-defined, no-any-return]


def test_camera_2_of_a_scan(tmp_path: Path) -> None:
    sequences = write_kitti(tmp_path)
    pixels = write_picture(sequences / "00" / "image_2" / "000000.png", 370, 1226)
    done = prepare(tmp_path, tmp_path)
    assert "train: sequence 00: 1 scans have no image" in done.notes
    (frame,) = frames_of(tmp_path, "00/000000")
    assert frame.name == "image_2" and frame.camera.size == (370, 1226) and frame.depth is None
    assert (frame.read_image() == pixels).all()
    # The full projection of the benchmark, exactly: P2 Tr x, whose pixels have their centres at integers.
    point = np.array([10.0, 2.0, 1.0])
    full = np.array([[700, 0, 600, 44.85], [0, 700, 180, 0.2163], [0, 0, 1, 0.0027]])
    u, v, w = full @ [-2, -1.08, 9.73, 1]
    uv, distance = frame.camera.project(torch.from_numpy(point[None]))
    assert uv[0].tolist() == pytest.approx([u / w + 0.5, v / w + 0.5])
    assert distance[0] == pytest.approx(w)
    assert frames_of(tmp_path, "08/000000", "val") == ()  # its sequence has no image_2


def test_a_manifest_of_the_calibration_gives_the_same_pixels(tmp_path: Path) -> None:
    sequences = write_kitti(tmp_path)
    write_picture(sequences / "00" / "image_2" / "000000.png", 370, 1226)
    prepare(tmp_path, tmp_path)
    (frame,) = frames_of(tmp_path, "00/000000")
    calibration = read_calibration(sequences / "00" / "calib.txt")
    intrinsics, pose = calibration.camera(2)
    view = {
        "image": "a.png",
        "width": 1226,
        "height": 370,
        "pixel_centre": 0,
    }  # as docs/data.md says
    view |= {"K": intrinsics.tolist(), "pose": pose.tolist(), "pose_direction": "world_to_camera"}
    manifest = tmp_path / "cameras.json"
    manifest.write_text(json.dumps({"format": "pointseg-cameras-1", "views": [view]}))
    points = torch.tensor([[10.0, 2, 1], [20, -5, 1]])
    (other,) = read_cameras(manifest)
    torch.testing.assert_close(frame.camera.project(points)[0], other.camera.project(points)[0])


def test_images_may_lie_elsewhere_and_stay_known(tmp_path: Path) -> None:
    write_kitti(tmp_path / "raw")
    color, out = tmp_path / "color", tmp_path / "out"
    write_picture(color / "dataset" / "sequences" / "00" / "image_2" / "000001.png", 370, 1226)
    prepare(tmp_path / "raw", out)
    assert frames_of(out, "00/000001") == ()
    prepare(tmp_path / "raw", out, images=color)
    prepare(tmp_path / "raw", out)
    assert len(frames_of(out, "00/000001")) == 1
    with pytest.raises(DatasetError, match="image_2"):
        prepare(tmp_path / "raw", out, images=tmp_path)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    sequences = write_kitti(tmp_path)
    prepare(tmp_path, tmp_path)
    write_picture(sequences / "00" / "image_2" / "000000.png", 185, 590)
    with pytest.raises(DatasetError, match="000000.png: is 590 x 185"):
        frames_of(tmp_path, "00/000000")
    with pytest.raises(ImagesError, match="000001.png: this image is missing"):
        frames_of(tmp_path, "00/000001")
    with pytest.raises(DatasetError, match="has no scene '00/000009'"):
        frames_of(tmp_path, "00/000009")
    write_picture(sequences / "08" / "image_2" / "000000.png", 370, 1226)
    with pytest.raises(DatasetError, match="calib.txt: is missing"):
        frames_of(tmp_path, "08/000000", "val")
    calib = sequences / "00" / "calib.txt"
    calib.write_text(calib.read_text().replace("Tr: 0 -1", "Tr: 0 -2"))
    write_picture(sequences / "00" / "image_2" / "000000.png", 370, 1226)
    with pytest.raises(ImagesError, match="000000.png with .*calib.txt: .*not a rigid transform"):
        frames_of(tmp_path, "00/000000")


def as_sequence(training: Path, number: str, sequence: Path) -> list[list[float]]:
    """KITTI's object benchmark in the odometry layout; returns the boxes of cars in the image and in space."""
    for kind, ending in (("velodyne", "bin"), ("image_2", "png")):
        (sequence / kind).mkdir(parents=True)
        shutil.copy(training / kind / f"{number}.{ending}", sequence / kind / f"000000.{ending}")
    points = (sequence / "velodyne" / "000000.bin").stat().st_size // 16
    (sequence / "labels").mkdir()
    np.full(points, 40, "<u4").tofile(sequence / "labels" / "000000.label")
    found = {}
    for line in (training / "calib" / f"{number}.txt").read_text().splitlines():
        key, _, words = line.partition(":")
        found[key] = np.array(words.split(), float)
    rectify, mount = np.eye(4), np.eye(4)
    rectify[:3, :3] = found["R0_rect"].reshape(3, 3)
    mount[:3] = found["Tr_velo_to_cam"].reshape(3, 4)
    found["Tr"] = (rectify @ mount)[:3].ravel()
    lines = [
        f"{key}: {' '.join(map(str, found[key].tolist()))}"
        for key in ("P0", "P1", "P2", "P3", "Tr")
    ]
    (sequence / "calib.txt").write_text("\n".join(lines) + "\n")
    boxes = []
    for line in (training / "label_2" / f"{number}.txt").read_text().splitlines():
        words = line.split()
        if words[0] != "DontCare":
            boxes.append([float(word) for word in words[4:]])
    return boxes


def test_real_frames_share_and_boxes(tmp_path: Path, shared: Path) -> None:
    training = shared / "data" / "points" / "kitti_object" / "training"
    names = {"00": "000000", "08": "000001"}
    boxes = {
        sequence: as_sequence(training, number, tmp_path / "sequences" / sequence)
        for sequence, number in names.items()
    }
    prepare(tmp_path, tmp_path)
    dataset = open_dataset("semantickitti", tmp_path)
    inside = total = 0
    for split, sequence, share in (("train", "00", 17.6), ("val", "08", 15.5)):
        scan = f"{sequence}/000000"
        (frame,) = frames_of(tmp_path, scan, split)
        scene = compute_visibility(
            dataset.load(split, scan), [frame], VisibilityConfig(), frame.camera.size
        )
        mask = scene["image_mask"][:, 0]
        assert 100 * mask.mean() == pytest.approx(share, abs=0.1)
        # Points in a 3D box (in rectified camera 0) fall into the 2D box that was drawn by hand.
        to_camera0 = dataset.calibration(sequence).velodyne_to_camera0  # type: ignore[attr-defined]
        place = scene.coord @ to_camera0[:3, :3].T + to_camera0[:3, 3]
        for left, top, right, bottom, high, wide, long, x, y, z, turn, *_ in boxes[sequence]:
            cos, sin = np.cos(turn), np.sin(turn)
            a, b = place[:, 0] - x, place[:, 2] - z
            along, across = cos * a - sin * b, sin * a + cos * b
            held = (np.abs(along) <= long / 2) & (np.abs(across) <= wide / 2) & mask
            held &= (place[:, 1] <= y) & (place[:, 1] >= y - high)
            u, v = scene["image_coord"][held, 0].T
            within = (u >= left - 1) & (u <= right + 1) & (v >= top - 1) & (v <= bottom + 1)
            inside, total = inside + int(within.sum()), total + int(held.sum())
    assert total > 300 and inside / total > 0.99
