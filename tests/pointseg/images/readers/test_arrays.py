"""Frames of arrays."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.images.readers.arrays import array_frame
from tests.pointseg.lifting.floor import K, halves, pose


def test_both_directions_of_the_pose_are_the_same_camera():
    one = array_frame(halves(), K, world_to_camera=pose())
    other = array_frame(halves(), K, camera_to_world=np.linalg.inv(pose())[:3])
    np.testing.assert_allclose(one.camera.world_to_camera, other.camera.world_to_camera)
    np.testing.assert_array_equal(one.read_image(), halves())


def test_unknown_depths_are_0():
    depth = np.full((2, 2), 3.0)
    depth[0, 1], depth[1] = np.nan, np.inf
    found = array_frame(halves(), K, world_to_camera=pose(), depth=depth).read_depth()
    assert found.tolist() == [[3, 0], [0, 0]]


@pytest.mark.parametrize(
    "changes",
    [
        {"image": halves()[..., 0]},
        {"image": halves() / 255},
        {"world_to_camera": None},
        {"camera_to_world": np.eye(4)},
        {"depth": np.zeros(3)},
        {"depth": "depth.png"},
        {"depth": np.full((2, 2), 1500, np.uint16)},  # millimetres, as cameras give them
    ],
)
def test_what_it_refuses(changes):
    with pytest.raises(ValueError, match="array_frame"):
        array_frame(**{"image": halves(), "intrinsics": K, "world_to_camera": pose(), **changes})
