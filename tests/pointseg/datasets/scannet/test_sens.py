"""The .sens stream: what the tests write in its format comes back, and damage is reported."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.scannet.sens import SensFile
from pointseg.images.readers.frame import ImagesError
from tests.pointseg.datasets.official import write_sens

HEIGHT, WIDTH = 6, 8


def frames(count: int = 5) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    made = []
    for number in range(count):
        pose = np.eye(4)
        pose[0, 3] = number
        color = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        color[...] = (10 * number, 100, 200 - number)
        depth = np.arange(12, dtype=np.uint16).reshape(3, 4) + 1000 * number
        made.append((pose, color, depth))
    return made


@pytest.mark.parametrize("color_codec", ["raw", "png", "jpeg"])
@pytest.mark.parametrize("depth_codec", ["raw", "zlib"])
def test_what_was_written_is_read(tmp_path: Path, color_codec: str, depth_codec: str) -> None:
    path, written = tmp_path / "a.sens", frames()
    write_sens(path, written, color_codec=color_codec, depth_codec=depth_codec)
    with SensFile(path) as stream:
        header = stream.header
        assert (header.sensor, header.frames, header.depth_per_m) == ("StructureSensor", 5, 1000)
        assert (header.color_codec, header.depth_codec) == (color_codec, depth_codec)
        assert (header.color_size, header.depth_size) == ((WIDTH, HEIGHT), (4, 3))
        assert header.intrinsic_color.diagonal().tolist() == [500, 510, 1, 1]
        assert header.intrinsic_depth.diagonal().tolist() == [250, 255, 0.5, 0.5]
        for number, (frame, (pose, color, depth)) in enumerate(
            zip(stream.frames(), written, strict=True)
        ):
            assert frame.number == number and frame.is_tracked
            assert frame.camera_to_world.tolist() == pose.tolist()
            assert np.abs(frame.color().astype(int) - color).max() <= (
                2 if color_codec == "jpeg" else 0
            )
            assert frame.depth_m() == pytest.approx(depth / 1000)


def test_every_third_frame_and_again(tmp_path: Path) -> None:
    write_sens(tmp_path / "a.sens", frames(8))
    with SensFile(tmp_path / "a.sens") as stream:
        assert [frame.number for frame in stream.frames(every=3)] == [0, 3, 6]
        first = stream.frames()
        assert next(first).number == 0
        assert [frame.number for frame in stream.frames(every=7)] == [0, 7]
        assert [frame.number for frame in first] == [1, 2, 3, 4, 5, 6, 7]


def test_frames_without_tracking_say_so(tmp_path: Path) -> None:
    made = frames(2)
    made[1][0][...] = -np.inf
    write_sens(tmp_path / "a.sens", made)
    with SensFile(tmp_path / "a.sens") as stream:
        assert [frame.is_tracked for frame in stream.frames()] == [True, False]


def test_skipped_frames_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sens(tmp_path / "a.sens", frames(20), color_codec="raw", depth_codec="raw")
    with SensFile(tmp_path / "a.sens") as stream:
        sizes: list[int] = []
        read = stream._read
        monkeypatch.setattr(stream, "_read", lambda n, what: (sizes.append(n), read(n, what))[1])
        assert len(list(stream.frames(every=20))) == 1
    assert sum(sizes) == 20 * 96 + HEIGHT * WIDTH * 3 + 12 * 2


def test_a_stream_that_is_cut_off_gives_its_whole_frames_first(tmp_path: Path) -> None:
    path = tmp_path / "a.sens"
    write_sens(path, frames(3))
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with SensFile(path) as stream:
        found = stream.frames()
        assert [next(found).number, next(found).number] == [0, 1]
        with pytest.raises(DatasetError, match="cut off in frame 2 of 3"):
            next(found)
    path.write_bytes(whole[:100])
    with pytest.raises(DatasetError, match="cut off in the header"):
        SensFile(path)


def patched(path: Path, at: int, data: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    path.write_bytes(whole)


AFTER_MATRICES = 4 + 8 + len("StructureSensor") + 4 * 64


@pytest.mark.parametrize(
    ("at", "data", "message"),
    [
        (0, struct.pack("<I", 3), "is of version 3"),
        (4, struct.pack("<Q", 1 << 40), "must be a .sens stream"),
        (AFTER_MATRICES, struct.pack("<i", 7), "codecs must be"),
        (AFTER_MATRICES + 4, struct.pack("<i", -1), "codecs must be"),
        (AFTER_MATRICES + 8, struct.pack("<I", 0), "header is damaged"),
        (AFTER_MATRICES + 24, struct.pack("<f", 0), "header is damaged"),
        (AFTER_MATRICES + 28, struct.pack("<Q", 1 << 50), "do not fit"),
    ],
)
def test_damaged_headers_are_refused(tmp_path: Path, at: int, data: bytes, message: str) -> None:
    write_sens(tmp_path / "a.sens", frames(1))
    patched(tmp_path / "a.sens", at, data)
    with pytest.raises(DatasetError, match=message):
        SensFile(tmp_path / "a.sens")


def test_sizes_of_images_beyond_the_end_are_refused(tmp_path: Path) -> None:
    write_sens(tmp_path / "a.sens", frames(1))
    patched(tmp_path / "a.sens", AFTER_MATRICES + 36 + 64 + 16, struct.pack("<Q", 1 << 60))
    with SensFile(tmp_path / "a.sens") as stream, pytest.raises(DatasetError, match="cut off"):
        next(stream.frames())


@pytest.mark.parametrize("color_codec", ["png", "jpeg", "raw"])
def test_images_of_another_size_are_refused(tmp_path: Path, color_codec: str) -> None:
    write_sens(tmp_path / "a.sens", frames(1), color_codec=color_codec)
    patched(tmp_path / "a.sens", AFTER_MATRICES + 8, struct.pack("<IIII", 9, 6, 5, 3))
    with SensFile(tmp_path / "a.sens") as stream:
        frame = next(stream.frames())
        with pytest.raises(DatasetError, match="frame 0: its colour image must"):
            frame.color()
        with pytest.raises(DatasetError, match="depth image must have 30 bytes, got 24"):
            frame.depth_m()


def test_images_that_are_none_are_refused(tmp_path: Path) -> None:
    write_sens(tmp_path / "a.sens", frames(1))
    at = AFTER_MATRICES + 36 + 96
    patched(tmp_path / "a.sens", at, b"\0" * 16)
    with SensFile(tmp_path / "a.sens") as stream:
        frame = next(stream.frames())
        with pytest.raises(ImagesError, match="frame 0: this colour image cannot be read"):
            frame.color()
        at += len(frame.color_bytes)
    patched(tmp_path / "a.sens", at, b"\0" * 4)
    with (
        SensFile(tmp_path / "a.sens") as stream,
        pytest.raises(DatasetError, match="depth image is"),
    ):
        next(stream.frames()).depth_m()


def test_a_depth_image_that_unpacks_to_more_is_refused_without_unpacking_all(
    tmp_path: Path,
) -> None:
    made = frames(1)
    write_sens(tmp_path / "a.sens", [(made[0][0], made[0][1], np.zeros((1000, 1000), np.uint16))])
    patched(tmp_path / "a.sens", AFTER_MATRICES + 16, struct.pack("<II", 4, 3))
    with SensFile(tmp_path / "a.sens") as stream, pytest.raises(DatasetError, match="got 25"):
        next(stream.frames()).depth_m()


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is missing"):
        SensFile(tmp_path / "no.sens")
    write_sens(tmp_path / "a.sens", frames(1), depth_codec="occi")
    with SensFile(tmp_path / "a.sens") as stream:
        with pytest.raises(DatasetError, match="only raw and zlib"):
            next(stream.frames()).depth_m()
        with pytest.raises(ValueError, match="'every' must be >= 1"):
            stream.frames(every=0)
