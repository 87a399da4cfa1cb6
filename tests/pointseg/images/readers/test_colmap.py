"""COLMAP's text models: lenses, images with and without keypoints, and every message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pointseg.images.readers.colmap import read_colmap, rotation
from pointseg.images.readers.frame import ImagesError
from pointseg.images.readers.image_files import ImageFile

CAMERAS = """# Camera list with one line of data per camera:
#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]
1 SIMPLE_PINHOLE 60 40 30 30.5 20.5
2 OPENCV 60 40 30 31 30 20 0.1 0.01 0.001 0.002
3 SIMPLE_RADIAL 60 40 30 30 20 -0.1
4 FULL_OPENCV 60 40 30 31 30 20 0.1 0 0 0 0.5 0 0 0
"""
# A quarter turn about z; the second image has no keypoints at all.
IMAGES = """# Image list with two lines of data per image:
#   IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME
2 0.7071067811865476 0 0 0.7071067811865476 1 2 3 2 b/second image.jpg
10.5 20.5 -1 3.5 4.5 17

1 1 0 0 0 0 0 0 1 a.jpg

4 1 0 0 0 0 0 0 3 c.jpg
1 2 3
"""


def write(root: Path, cameras: str = CAMERAS, images: str = IMAGES) -> Path:
    root.mkdir(exist_ok=True)
    (root / "cameras.txt").write_text(cameras)
    (root / "images.txt").write_text(images)
    return root


def test_a_model_by_hand(tmp_path: Path) -> None:
    frames = read_colmap(write(tmp_path / "sparse"), tmp_path / "images")
    assert [frame.name for frame in frames] == ["a.jpg", "b/second image.jpg", "c.jpg"]
    one, two, three = (frame.camera for frame in frames)
    assert frames[1].image == ImageFile(tmp_path / "images" / "b/second image.jpg")
    assert one.size == (40, 60) and one.distortion is None
    assert one.intrinsics.tolist() == [[30, 0, 30.5], [0, 30, 20.5], [0, 0, 1]]
    expected = [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    assert two.world_to_camera.numpy() == pytest.approx(np.array(expected))
    assert two.intrinsics.diag().tolist() == [30, 31, 1]
    assert two.distortion is not None and three.distortion is not None
    assert two.distortion.tolist() == [0.1, 0.01, 0.001, 0.002, 0]
    assert three.distortion.tolist() == [-0.1, 0, 0, 0, 0]
    full = read_colmap(write(tmp_path / "x", images="1 1 0 0 0 0 0 0 4 a.jpg\n\n"), tmp_path)
    assert full[0].camera.distortion is not None
    assert full[0].camera.distortion.tolist() == [0.1, 0, 0, 0, 0.5]


def test_rotations_of_any_length() -> None:
    assert rotation([2, 0, 0, 0], "x").tolist() == np.eye(3).tolist()
    turn = rotation([1, 2, 3, 4], "x")
    assert turn @ turn.T == pytest.approx(np.eye(3)) and np.linalg.det(turn) == pytest.approx(1)


@pytest.mark.parametrize(
    ("cameras", "images", "message"),
    [
        ("1 OPENCV_FISHEYE 60 40 1 1 1 1 0 0 0 0", IMAGES, "line 1: camera model 'OPENCV_FISHEYE'.*undistort"),
        ("1 PINHOLE 60 40 1 2 3", IMAGES, "line 1: PINHOLE must have width, height and fx, fy, cx, cy"),
        ("1 PINHOLE 60 x 1 2 3 4", IMAGES, "line 1: PINHOLE must have width"),
        ("1 FULL_OPENCV 60 40 1 1 1 1 0 0 0 0 0 0.1 0 0", IMAGES, "k4, k5 and k6 must be 0"),
        (CAMERAS, "1 1 0 0 0 0 0 0 9 a.jpg\n\n", "images.txt, line 1: camera 9 is not in"),
        (CAMERAS, "1 1 0 0 0 0 x 0 1 a.jpg\n\n", "line 1: has a value that is not a number"),
        (CAMERAS, "1 0 0 0 0 0 0 0 1 a.jpg\n\n", "quaternion w, x, y, z of length 1"),
        (CAMERAS, "1 1 0 0 0 0 0 nan 1 a.jpg\n\n", r"line 1 \(a.jpg\): .*not finite"),
        (CAMERAS, "1 1 0 0 0 0 0 0 1\n\n", "line 1: must have number"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_read_say_where(
    tmp_path: Path, cameras: str, images: str, message: str
) -> None:
    with pytest.raises(ImagesError, match=message):
        read_colmap(write(tmp_path, cameras, images), tmp_path)


def test_binary_models_are_to_be_converted(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match="cameras.txt: is missing$"):
        read_colmap(tmp_path, tmp_path)
    (tmp_path / "cameras.bin").write_bytes(b"\x00")
    with pytest.raises(ImagesError, match="is binary, convert it: colmap model_converter"):
        read_colmap(tmp_path, tmp_path)
    (tmp_path / "cameras.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ImagesError, match="cannot be read"):
        read_colmap(tmp_path, tmp_path)
