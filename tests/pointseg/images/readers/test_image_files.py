"""Images and depth maps in files; frames and cameras from plain numbers; every message."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from pointseg.images.readers.frame import Frame, ImagesError, make_camera, transform_frame
from pointseg.images.readers.image_files import (
    DepthFile,
    ImageFile,
    explain_changed_key,
    find_image,
    image_size,
)
from tests.pointseg.images.given import Given, K, frame, shifted


def test_images_of_eight_bits(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (ImageFile(tmp_path / "a.png").read() == pixels).all()
    assert image_size(tmp_path / "a.png") == (4, 6) and str(ImageFile(tmp_path / "a.png")).endswith(
        "a.png"
    )
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png")
    assert (ImageFile(tmp_path / "grey.png").read() == pixels[:, :, :1]).all()
    Image.fromarray(pixels).quantize(256).save(tmp_path / "palette.png")
    assert ImageFile(tmp_path / "palette.png").read().shape == (4, 6, 3)


def oriented(path: Path, pixels: np.ndarray, orientation: int) -> ImageFile:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return ImageFile(path)


@pytest.mark.parametrize("orientation", range(1, 10))
def test_images_are_turned_where_only_that_fits_the_camera(
    tmp_path: Path, orientation: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    image = oriented(tmp_path / "a.png", pixels, orientation)
    assert (image.read() == pixels).all()
    matrix = [[5, 0, 3], [0, 5, 2], [0, 0, 1]]
    stored, turned = (
        Frame(
            name="v",
            camera=make_camera("v", intrinsics=matrix, size=size, world_to_camera=np.eye(4)),
            image=image,
        )
        for size in ((4, 6), (6, 4))
    )
    assert (stored.read_image() == pixels).all()
    if 5 <= orientation <= 8:
        with Image.open(tmp_path / "a.png") as held:
            assert (turned.read_image() == np.asarray(ImageOps.exif_transpose(held))).all()
    else:
        with pytest.raises(ImagesError, match="a.png: is 6 x 4 .* are for 4 x 6; .*turn it back"):
            turned.read_image()
    large = replace(stored, camera=replace(stored.camera, size=(8, 12)))
    with pytest.raises(ImagesError, match="resized by 0.5"):
        large.read_image()


def test_orientations_that_no_size_shows_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    oriented(tmp_path / "wide.png", np.zeros((4, 6, 3), np.uint8), 6).read()
    oriented(tmp_path / "plain.png", np.zeros((4, 4, 3), np.uint8), 1).read()
    assert not caplog.text
    for name, side, orientation in (("square.jpg", 4, 8), ("half.jpg", 6, 3), ("b.jpg", 6, 3)):
        oriented(tmp_path / name, np.zeros((4, side, 3), np.uint8), orientation).read()
    assert "EXIF orientation 8" in caplog.text and caplog.text.count("EXIF orientation 3") == 1


def test_another_image_has_another_key(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (6, 4)).save(path)
    key = ImageFile(path).key()
    assert ImageFile(Path(os.path.relpath(path))).key() == key
    os.utime(path, (1, 1))
    assert ImageFile(path).key() != key
    path.unlink()
    with pytest.raises(ImagesError, match="a.png: this image is missing"):
        ImageFile(path).key()


def test_what_has_become_of_a_file_is_said(tmp_path: Path) -> None:
    def write(name: str, side: int = 4) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (side, side)).save(path)
        return ImageFile(path).key()

    one, other = write("old/a/0.png"), write("old/b/0.png")
    longer, another = write("far/a/0.png", 99), write("old/a/1.png")
    reason = explain_changed_key(write("new/a/0.png"), [other, one, longer, another, "a tape"])
    assert reason == f"the data was moved or copied: it was encoded as {tmp_path / 'old/a/0.png'}"
    assert explain_changed_key(write("new/a/2.png"), [one, other, longer, another]) == ""
    assert explain_changed_key(one, [one]) == "" and explain_changed_key("a tape", [one]) == ""
    os.utime(tmp_path / "old/a/0.png", (1, 1))
    now = ImageFile(tmp_path / "old/a/0.png").key()
    assert explain_changed_key(now, [other, one]).endswith(
        "0.png was copied or touched since it was encoded"
    )
    assert "has another content since" in explain_changed_key(write("old/a/0.png", 99), [one])


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for reading in (ImageFile(path).read, lambda: image_size(path)):
        with pytest.raises(ImagesError, match="a.png: this image is missing; unpack or copy"):
            reading()
    path.write_bytes(b"not an image")
    for reading in (ImageFile(path).read, lambda: image_size(path)):
        with pytest.raises(ImagesError, match="a.png: this image cannot be read"):
            reading()
    Image.fromarray(np.zeros((40, 60, 3), np.uint8) + 7).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImagesError, match="a.png: this image cannot be read"):
        ImageFile(path).read()
    Image.fromarray(np.full((4, 6), 3000, np.uint16)).save(path)
    with pytest.raises(ImagesError, match="a.png: must be a colour or grey image.*depth map?"):
        ImageFile(path).read()


def test_depths_in_metres_with_what_is_missing(tmp_path: Path) -> None:
    units = np.array([[0, 1000, 2500], [65535, 512, 1]], np.uint16)
    Image.fromarray(units).save(tmp_path / "d.png")
    assert DepthFile(tmp_path / "d.png").read().tolist() == (units / np.float32(1000)).tolist()
    found = DepthFile(tmp_path / "d.png", 512.0, (65535.0,)).read()
    assert found.dtype == np.float32 and found[1].tolist() == [0, 1, np.float32(1 / 512)]
    metres = np.array([[np.nan, 1.5, -1], [np.inf, 2, 0]], np.float32)
    np.save(tmp_path / "d.npy", metres)
    Image.fromarray(metres).save(tmp_path / "d.tiff")
    for name in ("d.npy", "d.tiff"):
        assert DepthFile(tmp_path / name, 1.0).read().tolist() == [[0, 1.5, 0], [0, 2, 0]]


def test_depth_maps_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "d.png"
    with pytest.raises(ImagesError, match="d.png: this depth map is missing"):
        DepthFile(path).read()
    Image.new("RGB", (6, 4)).save(path)
    with pytest.raises(
        ImagesError, match=r"d.png: a depth map must have one number per pixel, has \(4, 6, 3\)"
    ):
        DepthFile(path).read()
    (tmp_path / "d.npy").write_bytes(b"nothing")
    with pytest.raises(ImagesError, match="d.npy: this depth map cannot be read"):
        DepthFile(tmp_path / "d.npy").read()


def array_header(described: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(described).to_bytes(2, "little") + described.encode()


@pytest.mark.parametrize(
    "content",
    [
        array_header("{'descr': '<f4', 'fortran_order': False, 'shape': (200000, 200000), }\n"),
        array_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), "),
        array_header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1), }\n") + bytes(8),
        b"\x93NUMPY",
    ],
)
def test_damaged_arrays_of_depths_take_no_memory(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.npy").write_bytes(content)
    with pytest.raises(ImagesError, match="d.npy: this depth map cannot be read: ") as caught:
        DepthFile(tmp_path / "d.npy").read()
    assert str(caught.value).count("d.npy") == 1


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_depths_in_any_order_of_bytes(tmp_path: Path, order: Any) -> None:
    metres = np.arange(6, dtype=">f8").reshape(2, 3)
    np.save(tmp_path / "d.npy", np.asarray(metres, order=order))
    found = DepthFile(tmp_path / "d.npy", 1.0).read()
    assert found.dtype == np.float32 and found.tolist() == metres.tolist()


@pytest.mark.parametrize("error", [TypeError, KeyError, struct.error, Image.DecompressionBombError])
def test_whatever_pillow_raises_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def damaged(*_: Any, **__: Any) -> None:
        raise error("a tag of the wrong type")

    path = tmp_path / "a.tif"
    Image.fromarray(np.full((4, 6), 3000, np.uint16)).save(path)
    image, depth = ImageFile(path), DepthFile(path)
    monkeypatch.setattr(Image, "open", damaged)
    for reading in (image.read, image.orientation, depth.read, lambda: image_size(path)):
        with pytest.raises(ImagesError, match="a.tif: this .* cannot be read: .*wrong type"):
            reading()


def test_names_that_no_file_can_have_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> bool:
        raise OSError(errno.ENAMETOOLONG, "File name too long")

    with pytest.raises(ImagesError, match="this image cannot be read"):
        ImageFile(tmp_path / "a\0b").key()
    monkeypatch.setattr(Path, "is_file", refuse)  # as Linux does of 5,000 letters
    with pytest.raises(ImagesError, match="t.json: frame 3: .*KKK.*: File name too long") as caught:
        find_image(tmp_path, "K" * 5000, "t.json: frame 3")
    assert len(str(caught.value)) < 400


def test_frames_check_what_they_read() -> None:
    with pytest.raises(
        ImagesError, match=r"given.png: is 7 x 5 .*'view' are for 60 x 40; give the image"
    ):
        frame(image=np.zeros((5, 7, 3), np.uint8)).read_image()
    with pytest.raises(ImagesError, match="view_depth.png: is 40 x 40 "):
        frame(depth=np.ones((40, 40))).read_depth()
    depth = frame(depth=np.ones((10, 15))).read_depth()
    assert depth is not None and depth.shape == (10, 15) and frame().read_depth() is None


def test_cameras_from_either_direction() -> None:
    pose = shifted(1, 2, 3)
    one = make_camera("x", intrinsics=K, size=(40, 60), world_to_camera=pose)
    two = make_camera(
        "x", intrinsics=np.pad(K, (0, 1)), size=(40, 60), camera_to_world=np.linalg.inv(pose)[:3]
    )
    assert one.centre.tolist() == two.centre.tolist() == [-1, -2, -3]
    assert torch.equal(one.intrinsics, two.intrinsics)
    three = make_camera(
        "x", intrinsics=K, size=(40, 60), world_to_camera=pose, distortion=[0.1, 0, 0, 0, 0]
    )
    assert three.distortion is not None and three.distortion.radial[0] == 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"world_to_camera": 2 * np.eye(4)}, "last row must be 0, 0, 0, 1"),
        ({"world_to_camera": np.diag([2.0, 2, 2, 1])}, "scaled by 2"),
        ({"camera_to_world": np.diag([2.0, 2, 2, 1])}, r"its pose \(camera to world\).*scaled by 2"),
        ({"camera_to_world": np.full((4, 4), -np.inf)}, "not finite"),
        ({"camera_to_world": np.diag([-1.0, 1, 1, 1])}, "mirrors"),
        ({"world_to_camera": np.eye(3)}, "must be a .4, 4. matrix"),
        ({"world_to_camera": np.eye(4), "intrinsics": np.full((3, 3), np.nan)}, "'intrinsics' must be a finite"),
        ({"world_to_camera": np.eye(4), "distortion": [1.0, 2.0]}, "'distortion' must be 4, 5 or 8"),
    ],
)  # fmt: skip
def test_cameras_that_are_none_name_file_and_view(changes, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ImagesError, match=f"^f.json: view 3: .*{message}"):
        make_camera("f.json: view 3", **{"intrinsics": K, "size": (40, 60), **changes})


def test_cameras_are_carried_with_their_points() -> None:
    rng = np.random.default_rng(0)
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    points = rng.uniform([-1, -1, 1], [1, 1, 3], (50, 3))
    before = frame(shifted(0.2, 0.1, 1))
    after = transform_frame(before, turn, np.array([5.0, 6, 7]), scale=0.01)
    moved = 0.01 * points @ turn.T + [5, 6, 7]
    (one, near), (two, far) = (
        each.camera.project(torch.from_numpy(at)) for each, at in ((before, points), (after, moved))
    )
    assert two.numpy() == pytest.approx(one.numpy()) and far.numpy() == pytest.approx(
        0.01 * near.numpy()
    )
    assert after.image is before.image


def test_any_source_will_do() -> None:
    other: Frame = replace(frame(), image=Given(np.zeros((40, 60, 3), np.uint8)))
    assert other.read_image().shape == (40, 60, 3)
