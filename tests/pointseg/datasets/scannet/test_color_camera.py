"""The colour camera next to the depth camera: whose pose images have, and where depths go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.scannet.color_camera import move_depth, read_color_to_depth
from pointseg.datasets.scannet.prepare import prepare
from tests.pointseg.datasets.official import write_scannet
from tests.pointseg.datasets.scannet.test_images import (
    COLOR_K,
    POSE,
    SCENE,
    extract,
    frames_of,
    prepared,
)

# The colour camera is 0.25 m to the right of the depth camera, as the depth camera sees it.
SHIFT = np.array([[1, 0, 0, 0.25], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
# It is turned by a quarter as well: its x axis is the depth camera's y axis.
TURN = np.array([[0, -1, 0, 0.25], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def about(raw: Path, matrix: np.ndarray | str) -> None:
    text = matrix if isinstance(matrix, str) else " ".join(f"{x:.6f}" for x in matrix.ravel())
    path = raw / "scans" / SCENE / f"{SCENE}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"colorHeight = 968\ncolorToDepthExtrinsics = {text}\nnumDepthFrames = 3\n")


def test_images_have_the_pose_of_the_colour_camera(tmp_path: Path) -> None:
    """The depth camera at 0.5, 0.5, 2 m looks down, its x axis along +x, its y axis along -y.

    So the colour camera is at 0.75, 0.5, 2 m; its own x axis is -y of the world, its y axis -x.
    """
    about(tmp_path / "raw", TURN)
    camera = frames_of(prepared(tmp_path))[0].camera
    pose = np.linalg.inv(camera.world_to_camera.numpy())
    assert np.allclose(pose[:3, 3], [0.75, 0.5, 2])
    assert np.allclose(pose[:3, :3].T, [[0, -1, 0], [-1, 0, 0], [0, 0, -1]])


def test_depths_move_with_it(tmp_path: Path) -> None:
    """A floor 2 m ahead: 0.25 m are 20 / 2 * 0.25 = 2.5 pixels of the depth map, to the left."""
    about(tmp_path / "raw", SHIFT)
    depth = frames_of(prepared(tmp_path))[0].read_depth()
    assert depth is not None and depth.shape == (24, 32)
    assert (depth[:, :30] == 2).all() and not depth[:, 30:].any()


def test_of_two_depths_at_one_pixel_the_nearer_counts() -> None:
    intrinsics = np.array([[10.0, 0, 4], [0, 10, 2], [0, 0, 1]])
    depth = np.full((4, 8), 4, np.float32)
    depth[:, 5] = 1  # moves by 10 * 0.2 / 1 = 2 pixels to the left, the rest by half a pixel
    shift = np.eye(4)
    shift[0, 3] = 0.2
    moved = move_depth(depth, intrinsics, intrinsics, shift)
    assert (moved[:, 3] == 1).all() and (moved[:, [0, 1, 2, 4, 5, 6, 7]] == 4).all()
    same = move_depth(depth, intrinsics, intrinsics, np.eye(4))
    assert (same == depth).all()


def test_extracted_frames_too(tmp_path: Path) -> None:
    write_scannet(tmp_path / "raw")
    about(tmp_path / "raw", SHIFT)
    folder = tmp_path / "frames" / SCENE
    extract(folder)
    done = prepare(tmp_path / "raw", tmp_path / "before", images=tmp_path / "frames")
    assert any("intrinsic_depth.txt" in note for note in done.notes)
    np.savetxt(folder / "intrinsic" / "intrinsic_depth.txt", _square(COLOR_K / [[2], [2], [1]]))
    prepare(tmp_path / "raw", tmp_path / "out", images=tmp_path / "frames")
    before, after = frames_of(tmp_path / "before")[0], frames_of(tmp_path / "out")[0]
    for frame in (before, after):
        pose = np.linalg.inv(frame.camera.world_to_camera.numpy())
        assert np.allclose(pose, POSE @ SHIFT)
    kept, moved = before.read_depth(), after.read_depth()
    assert kept is not None and moved is not None
    assert kept.all() and (moved[:, :30] == 2).all() and not moved[:, 30:].any()
    np.savetxt(folder / "intrinsic" / "intrinsic_depth.txt", _square(COLOR_K))
    failed = prepare(tmp_path / "raw", tmp_path / "again", images=tmp_path / "frames").failed
    assert "intrinsic_depth.txt" in failed[f"train/{SCENE}"]


def _square(intrinsics: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = intrinsics
    return matrix


def test_without_it_both_cameras_are_at_one_place(tmp_path: Path) -> None:
    path = tmp_path / "scene.txt"
    assert read_color_to_depth(path) is None
    path.write_text("axisAlignment = 1 0 0 0\nsceneType = Apartment\n")
    assert read_color_to_depth(path) is None


@pytest.mark.parametrize("text", ["1 2 3", "1 0 0 x", " ".join("2" * 16), ""])
def test_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scene.txt"
    path.write_text(f"colorToDepthExtrinsics = {text}\n")
    with pytest.raises(DatasetError, match="scene.txt"):
        read_color_to_depth(path)
