"""Structured3D's cameras by hand, and its frames against the rendered room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pointseg.datasets import open_dataset
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.structured3d.cameras import panorama_rays, pinhole_rays, read_pinhole
from pointseg.datasets.structured3d.prepare import prepare
from pointseg.images.projection import compute_visibility
from pointseg.images.visibility import VisibilityConfig
from tests.pointseg.datasets.structured3d.box_room import write_room

ANGLES = f"{np.arctan(0.5)} {np.arctan(0.25)}"
"""Half the angles of view."""


def test_a_pinhole_by_hand(tmp_path: Path) -> None:
    """At 1, 2, 1.5 m, looking along +y: +x is right, +z is up; the image is 8 x 4 pixels, fx = fy = 8."""
    path = tmp_path / "camera_pose.txt"
    path.write_text(f"1000 2000 1500  0 1 0  0 0 1  {ANGLES}  1")
    camera = read_pinhole(path, (4, 8))
    assert np.allclose(camera.intrinsics, [[8, 0, 4], [0, 8, 2], [0, 0, 1]])
    point = camera.world_to_camera.numpy() @ [1.5, 4, 2, 1]
    assert np.allclose(point, [0.5, -0.5, 2, 1])  # right, above the axis, ahead
    assert np.allclose(pinhole_rays(camera)[0, 7], [3.5 / 8, 1, 1.5 / 8])


def test_panorama_rays_by_hand() -> None:
    """4 columns look along -135, -45, 45 and 135 degrees from +y towards +x; 2 rows up and down by 45."""
    half = np.sqrt(0.5)
    rays = panorama_rays((2, 4))
    assert np.allclose(
        rays[0], [[-0.5, -0.5, half], [-0.5, 0.5, half], [0.5, 0.5, half], [0.5, -0.5, half]]
    )
    assert np.allclose(rays[1, 2], [0.5, 0.5, -half])


@pytest.mark.parametrize(
    "text",
    [
        f"0 0 0  0 1 0  0 0 1  {ANGLES}",  # a number is missing
        f"0 0 0  0 1 0  0 2 0  {ANGLES}  1",
        f"0 0 0  0 0 0  0 0 1  {ANGLES}  1",
        "0 0 0  0 1 0  0 0 1  1.6 0.4  1",
        "0 0 0  0 1 0  0 0 1  0.7 -0.4  1",
        f"0 0 nan  0 1 0  0 0 1  {ANGLES}  1",
        f"0 0 1e9  0 1 0  0 0 1  {ANGLES}  1",
        f"zero 0 0  0 1 0  0 0 1  {ANGLES}  1",
    ],
)
def test_refused_poses(tmp_path: Path, text: str) -> None:
    path = tmp_path / "camera_pose.txt"
    path.write_text(text)
    with pytest.raises(DatasetError, match="camera_pose.txt"):
        read_pinhole(path, (4, 8))


def test_frames_show_the_points_in_their_colours(tmp_path: Path) -> None:
    write_room(tmp_path / "in")
    result = prepare(tmp_path / "in", tmp_path / "out", images=tmp_path / "in")
    assert result.failed == {}
    dataset = open_dataset("structured3d", tmp_path / "out")
    name = "scene_00000_room_485142"
    scene = dataset.load("train", name)
    frames = dataset.frames("train", name)  # type: ignore[attr-defined]
    assert [frame.name for frame in frames] == ["0", "1", "10"]
    rule = VisibilityConfig(depth_tolerance_m=0.03)
    seen = compute_visibility(scene, frames, rule, frames[0].camera.size)
    for view, frame in enumerate(frames):
        shown = seen["image_mask"][:, view]
        column, row = seen["image_coord"][shown, view].astype(int).T
        same = (frame.read_image()[row, column] == scene["color"][shown]).all(1)
        assert shown.sum() > 4000 and same.mean() > 0.98
