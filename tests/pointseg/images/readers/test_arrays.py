"""Frames of arrays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pointseg.images.readers.arrays import array_frame, warn_of_intrinsics
from pointseg.images.readers.frame import ImagesError
from pointseg.images.readers.image_files import ImageFile
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


@pytest.mark.parametrize("factor", [0.5, 2, 4])
def test_intrinsics_of_another_size_are_refused_unless_the_image_was_cut(factor):
    other = np.diag([factor, factor, 1]) @ K
    with pytest.raises(
        ImagesError, match=f"'intrinsics' of view 'b'.*multiply .* by {1 / factor:g}"
    ):
        array_frame(halves(), other, world_to_camera=pose(), name="b")
    cut = array_frame(halves(), other, world_to_camera=pose(), check_intrinsics=False)
    np.testing.assert_array_equal(cut.camera.intrinsics, other)


def test_frames_of_files_with_intrinsics_of_another_size_are_warned_of_once():
    right = array_frame(halves(), K, world_to_camera=pose())
    doubtful = array_frame(
        halves(), np.diag([2, 2, 1]) @ K, world_to_camera=pose(), check_intrinsics=False
    )
    own = replace(doubtful, name="own", image=ImageFile(Path("own.png")))
    warn_of_intrinsics("lift_features", [right, doubtful])  # array_frame was asked for it
    with pytest.warns(
        UserWarning, match="lift_features: 'frames': view 'own' and 1 more.*0.5"
    ) as said:
        warn_of_intrinsics("lift_features", [right, own, replace(own, name="next")])
    assert len(said) == 1
    warn_of_intrinsics("predict", [replace(own, projection=Given())])  # needs no intrinsics


class Given:
    """Where a dataset says that points are."""

    def read(self, count):
        return np.zeros((count, 2), np.float32), np.ones(count, bool)
