"""COLMAP's text models: lenses, images with and without keypoints, and every message."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from pointseg.images.readers.colmap import read_colmap, rotation
from pointseg.images.readers.frame import ImagesError
from pointseg.images.readers.image_files import ImageFile
from pointseg.images.readers.manifest import describe_lens

CAMERAS = """# Camera list with one line of data per camera:
#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]
1 SIMPLE_PINHOLE 60 40 30 30.5 20.5
2 OPENCV 60 40 30 31 30 20 0.1 0.01 0.001 0.002
3 SIMPLE_RADIAL 60 40 30 30 20 -0.1
4 FULL_OPENCV 60 40 30 31 30 20 0.1 0 0 0 0.5 0 0 0.2
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


ONE = "1 1 0 0 0 0 0 0 1 a.jpg\n\n"


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
    assert describe_lens(two.distortion) == [0.1, 0.01, 0.001, 0.002, 0]
    assert describe_lens(three.distortion) == [-0.1, 0, 0, 0, 0]
    full = read_colmap(write(tmp_path / "x", images="1 1 0 0 0 0 0 0 4 a.jpg\n\n"), tmp_path)
    assert full[0].camera.distortion is not None
    assert describe_lens(full[0].camera.distortion) == [0.1, 0, 0, 0, 0.5, 0, 0, 0.2]


def test_rotations_of_any_length() -> None:
    assert rotation([2, 0, 0, 0], "x").tolist() == np.eye(3).tolist()
    turn = rotation([1, 2, 3, 4], "x")
    assert turn @ turn.T == pytest.approx(np.eye(3)) and np.linalg.det(turn) == pytest.approx(1)


@pytest.mark.parametrize(
    ("cameras", "images", "message"),
    [
        ("1 FOV 60 40 1 1 1 1 0.9", ONE, "line 1: camera model 'FOV'.*undistort"),
        ("1 PINHOLE 60 40 1 2 3", ONE, "line 1: PINHOLE must have width, height and fx, fy, cx, cy"),
        ("1 PINHOLE 60 x 1 2 3 4", IMAGES, "line 1: PINHOLE must have width"),
        ("1 PINHOLE 60 40 30 nan 3 4", ONE, "cameras.txt, line 1: .*finite"),
        ("1 PINHOLE 60 -40 30 30 3 4", ONE, "cameras.txt, line 1: .*pixels a side"),
        ("1 OPENCV_FISHEYE 60 40 1 1 1 1 0 0 0 nan", ONE, "line 1: .*'radial'.*finite"),
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


def test_images_without_lines_of_keypoints_are_all_read(tmp_path: Path) -> None:
    bare = "".join(f"{line}\n" for line in IMAGES.splitlines() if line.endswith(".jpg"))
    frames = read_colmap(write(tmp_path, images=bare), tmp_path)
    assert [frame.name for frame in frames] == ["a.jpg", "b/second image.jpg", "c.jpg"]
    with pytest.raises(ImagesError, match="line 2: must have number"):
        read_colmap(write(tmp_path, images=bare.replace("\n", "\n1 2 3 4\n", 1)), tmp_path)


def test_only_cameras_that_are_used_are_judged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = CAMERAS + "9 EQUIRECTANGULAR 60 40 60 40\n"
    assert len(read_colmap(write(tmp_path, more), tmp_path)) == 3 and not caplog.text
    used = IMAGES.replace(" 3 c.jpg", " 9 c.jpg")
    assert [frame.name for frame in read_colmap(write(tmp_path, more, used), tmp_path)] == [
        "a.jpg",
        "b/second image.jpg",
    ]
    assert "1 of 3 images are left out" in caplog.text and "EQUIRECTANGULAR" in caplog.text


def test_every_model_that_is_read_by_its_formula(tmp_path: Path) -> None:
    """At x/z = 0.8, y/z = -0.6 the radius is 1, the angle a = 45 degrees, the direction (0.8, -0.6)."""
    a = math.pi / 4
    x, y, xx, yy, xy = 0.8 * a, -0.6 * a, 0.64 * a**2, 0.36 * a**2, -0.48 * a**2
    prism = 1 + 0.1 * a**2 + 0.02 * a**4 + 0.3 * a**6 + 0.4 * a**8
    for line, expected in (
        ("SIMPLE_FISHEYE 60 40 30 30 20", (x, y)),
        ("FISHEYE 60 40 30 30 30 20", (x, y)),
        ("SIMPLE_RADIAL_FISHEYE 60 40 30 30 20 0.1", (x * (1 + 0.1 * a**2), y * (1 + 0.1 * a**2))),
        (
            "RADIAL_FISHEYE 60 40 30 30 20 0.1 0.02",
            (x * (1 + 0.1 * a**2 + 0.02 * a**4), y * (1 + 0.1 * a**2 + 0.02 * a**4)),
        ),
        ("OPENCV_FISHEYE 60 40 30 30 30 20 0.1 0.02 0.3 0.4", (x * prism, y * prism)),
        (
            "THIN_PRISM_FISHEYE 60 40 30 30 30 20 0.1 0.02 0.01 0.03 0.3 0.4 0.05 0.06",
            (
                x * prism + 0.02 * xy + 0.03 * (a**2 + 2 * xx) + 0.05 * a**2,
                y * prism + 0.06 * xy + 0.01 * (a**2 + 2 * yy) + 0.06 * a**2,
            ),
        ),
        (
            "FULL_OPENCV 60 40 30 30 30 20 0.1 0.02 0.01 0.03 0.3 0.4 0.05 0.06",
            (
                0.8 * 1.42 / 1.51 + 0.02 * -0.48 + 0.03 * (1 + 1.28),
                -0.6 * 1.42 / 1.51 + 0.06 * -0.48 + 0.01 * (1 + 0.72),
            ),
        ),
    ):
        (frame,) = read_colmap(write(tmp_path, f"1 {line}\n", ONE), tmp_path)
        uv, _ = frame.camera.project(torch.tensor([[1.6, -1.2, 2]], dtype=torch.float64))
        assert uv[0].tolist() == pytest.approx([30 + 30 * expected[0], 20 + 30 * expected[1]]), line


def packed() -> tuple[bytes, bytes]:
    """The first two cameras and images of the text model, as COLMAP packs them."""
    cameras = struct.pack("<Q", 2)
    cameras += struct.pack("<IiQQ3d", 1, 0, 60, 40, 30, 30.5, 20.5)
    cameras += struct.pack("<IiQQ8d", 2, 4, 60, 40, 30, 31, 30, 20, 0.1, 0.01, 0.001, 0.002)
    half = 0.7071067811865476
    images = struct.pack("<QI7dI", 2, 2, half, 0, 0, half, 1, 2, 3, 2)
    images += b"b/second image.jpg\0" + struct.pack("<Q2dq2dq", 2, 10.5, 20.5, -1, 3.5, 4.5, 17)
    images += struct.pack("<I7dI", 1, 1, 0, 0, 0, 0, 0, 0, 1) + b"a.jpg\0" + struct.pack("<Q", 0)
    return cameras, images


def test_binary_models_are_read_as_their_text(tmp_path: Path) -> None:
    cameras, images = packed()
    (tmp_path / "cameras.bin").write_bytes(cameras)
    (tmp_path / "images.bin").write_bytes(images)
    found = read_colmap(tmp_path, tmp_path / "images")
    expected = read_colmap(write(tmp_path / "text"), tmp_path / "images")[:2]
    for one, other in zip(found, expected, strict=True):
        assert (one.name, one.image, one.camera.size) == (
            other.name,
            other.image,
            other.camera.size,
        )
        assert torch.equal(one.camera.intrinsics, other.camera.intrinsics)
        assert torch.equal(one.camera.world_to_camera, other.camera.world_to_camera)
    for name, content, message in (
        ("images.bin", images[:-1], "images.bin: is cut off"),
        ("images.bin", images + b"x", "1 bytes more"),
        ("images.bin", struct.pack("<Q", 2**60), "is cut off"),  # nothing of that size is taken
        (
            "cameras.bin",
            cameras.replace(struct.pack("<Ii", 2, 4), struct.pack("<Ii", 2, 77)),
            "number 77",
        ),
        ("cameras.bin", cameras[: 8 + 48], "is cut off"),
    ):
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImagesError, match=message):
            read_colmap(tmp_path, tmp_path)
        (tmp_path / name).write_bytes(before)


def test_models_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match="cameras.txt: is missing"):
        read_colmap(tmp_path, tmp_path)
    (tmp_path / "cameras.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ImagesError, match="cannot be read"):
        read_colmap(tmp_path, tmp_path)


def test_made_models_of_people(shared: Path) -> None:
    cases = shared / "cases/points"
    names = ["im 4.png", "im0.png", "im1.png", "im2.png", "im3.png"]
    for folder, count in (
        ("colmap_no_keypoint_lines/sparse_nokp", 5),
        ("colmap_unused_fisheye/sparse_unused_fisheye", 5),
        ("colmap_unused_fisheye/sparse_one_fisheye", 5),
        ("transforms_json/sparse_bin", 5),
    ):
        found = [frame.name for frame in read_colmap(cases / folder, cases)]
        assert found == names[-count:], folder
