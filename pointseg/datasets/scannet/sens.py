"""Reads ScanNet's ``.sens`` streams of RGB-D frames, one frame at a time.

Layout, little endian: uint32 version 4; uint64 n and n characters, the sensor; four 4x4 float32:
intrinsics and extrinsics of the colour, then of the depth camera; int32 colour codec (0 raw, 1 PNG,
2 JPEG); int32 depth codec (0 raw uint16, 1 zlib uint16, 2 occipital); uint32 colour width, height, depth
width, height; float32 depth units per metre; uint64 frames. Per frame: 4x4 float32 camera to world;
uint64 time of the colour, time of the depth, bytes of the colour, bytes of the depth; then both.

Source: Dai 2017, arXiv:1702.04405, its sensor data format.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.errors import DatasetError
from pointseg.images.readers.pillow import opened_image

VERSION = 4
COLOR_CODECS = {0: "raw", 1: "png", 2: "jpeg"}
DEPTH_CODECS = {0: "raw", 1: "zlib", 2: "occipital"}
LONGEST_NAME, LARGEST_SIDE = 4096, 16384  # beyond: not a header

_BEFORE_MATRICES = struct.Struct("<IQ")
_AFTER_MATRICES = struct.Struct("<iiIIIIfQ")
_FRAME = struct.Struct("<16fQQQQ")
_MATRIX_BYTES = 16 * 4


@dataclass(frozen=True)
class SensHeader:
    """The header of a stream."""

    sensor: str
    """Name of the sensor."""
    intrinsic_color: NDArray[np.float32]
    """(4, 4) camera to pixels (u right, v down) of the colour images."""
    intrinsic_depth: NDArray[np.float32]
    """(4, 4) the same of the depth images."""
    color_codec: str
    """Codec of the colour images: raw, png or jpeg."""
    depth_codec: str
    """Codec of the depth images: raw, zlib, or occipital, which cannot be read."""
    color_size: tuple[int, int]
    """Width and height of the colour images in pixels."""
    depth_size: tuple[int, int]
    """Width and height of the depth images in pixels."""
    depth_per_m: float
    """Units of the depth images per metre: 1000 for millimetres."""
    frames: int
    """Number of frames."""


@dataclass(frozen=True)
class SensFrame:
    """One frame with its encoded images."""

    path: Path
    """The stream."""
    header: SensHeader
    """The header of the stream."""
    number: int
    """Its position in the stream, from 0."""
    camera_to_world: NDArray[np.float32]
    """(4, 4) pose; not finite where tracking was lost."""
    color_bytes: bytes
    """The encoded colour image: for jpeg and png the content of such a file."""
    depth_bytes: bytes
    """The encoded depth image."""

    @property
    def is_tracked(self) -> bool:
        """Whether the pose of the frame is known."""
        return bool(np.isfinite(self.camera_to_world).all())

    def color(self) -> NDArray[np.uint8]:
        """(H, W, 3) red, green, blue.

        Raises:
            UserError: the image is damaged, or not of the size in the header.
        """
        width, height = self.header.color_size
        if self.header.color_codec == "raw":
            self._require_bytes("colour", len(self.color_bytes), width * height * 3)
            return np.frombuffer(self.color_bytes, np.uint8).reshape(height, width, 3)
        what, formats = "colour image", ("PNG", "JPEG")
        with opened_image(self.color_bytes, self._who, what=what, formats=formats) as image:
            if image.size != (width, height):
                raise DatasetError(
                    f"{self._who}: its colour image must be {width} x {height} pixels, "
                    f"got {image.size[0]} x {image.size[1]}"
                )
            return np.asarray(image.convert("RGB"))

    def depth_m(self) -> NDArray[np.float32]:
        """(H, W) metres along the camera's axis; 0 where nothing was measured.

        Raises:
            DatasetError: the image is damaged, or its codec is occipital.
        """
        width, height = self.header.depth_size
        data, size = self.depth_bytes, 2 * width * height
        if self.header.depth_codec == "zlib":
            try:  # one byte more than needed shows that it is too long
                data = zlib.decompressobj().decompress(data, size + 1)
            except zlib.error as error:
                raise DatasetError(f"{self._who}: its depth image is damaged: {error}") from error
        elif self.header.depth_codec != "raw":
            raise DatasetError(
                f"{self._who}: depth is compressed as '{self.header.depth_codec}'; only raw and zlib can be read"
            )
        self._require_bytes("depth", len(data), size)
        units = np.frombuffer(data, "<u2").reshape(height, width)
        return units.astype(np.float32) / np.float32(self.header.depth_per_m)

    def _require_bytes(self, what: str, found: int, needed: int) -> None:
        if found != needed:
            raise DatasetError(
                f"{self._who}: its {what} image must have {needed} bytes, got {found}"
            )

    @property
    def _who(self) -> str:
        return f"{self.path}: frame {self.number}"


class SensFile:
    """A ``.sens`` stream that is open for reading; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open a stream and read its header.

        Raises:
            DatasetError: not a ``.sens`` file of version 4, or cut off.
        """
        self.path = path
        try:
            self._stream: BinaryIO = open(path, "rb")
        except FileNotFoundError as error:
            raise DatasetError(f"{path}: is missing") from error
        try:
            self._size = path.stat().st_size
            self.header = self._read_header()
            self._start = self._stream.tell()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> SensFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.close()

    def frames(self, every: int = 1) -> Iterator[SensFrame]:
        """Frames 0, ``every``, 2 * ``every`` and so on; the others are not read.

        Raises:
            ValueError: ``every`` < 1.
            DatasetError: the stream is cut off; raised at the incomplete frame.
        """
        if every < 1:
            raise ValueError(f"SensFile.frames: 'every' must be >= 1, got {every}")
        return self._frames(every)

    def _frames(self, every: int) -> Iterator[SensFrame]:
        at = self._start
        for number in range(self.header.frames):
            self._stream.seek(at)  # the caller may run several iterators
            what = f"frame {number} of {self.header.frames}"
            *pose, _, _, color_size, depth_size = _FRAME.unpack(self._read(_FRAME.size, what))
            at = self._stream.tell() + color_size + depth_size
            if at > self._size:
                raise self._cut_off(what)
            if number % every == 0:
                yield SensFrame(
                    path=self.path,
                    header=self.header,
                    number=number,
                    camera_to_world=np.array(pose, np.float32).reshape(4, 4),
                    color_bytes=self._read(color_size, what),
                    depth_bytes=self._read(depth_size, what),
                )

    def _read_header(self) -> SensHeader:
        version, length = _BEFORE_MATRICES.unpack(self._read(_BEFORE_MATRICES.size, "the header"))
        if version != VERSION or length > LONGEST_NAME:
            raise DatasetError(
                f"{self.path}: must be a .sens stream of version {VERSION}, is of version {version}"
            )
        sensor = self._read(length, "the header").decode("utf-8", "replace")
        color, _, depth, _ = (  # intrinsics and poses of both cameras; poses are the identity
            np.frombuffer(self._read(_MATRIX_BYTES, "the header"), "<f4").reshape(4, 4)
            for _ in range(4)
        )
        (color_codec, depth_codec, *sides, per_m, frames) = _AFTER_MATRICES.unpack(
            self._read(_AFTER_MATRICES.size, "the header")
        )
        if color_codec not in COLOR_CODECS or depth_codec not in DEPTH_CODECS:
            raise DatasetError(
                f"{self.path}: codecs must be {COLOR_CODECS} for colour and {DEPTH_CODECS} for depth, "
                f"got {color_codec} and {depth_codec}"
            )
        if not all(1 <= side <= LARGEST_SIDE for side in sides) or not 0 < per_m < float("inf"):
            raise DatasetError(
                f"{self.path}: its header is damaged: image sides {sides} pixels, {per_m} units per metre"
            )
        if frames * _FRAME.size > self._size:
            raise DatasetError(
                f"{self.path}: is cut off or damaged: {frames} frames do not fit into {self._size} bytes"
            )
        return SensHeader(
            sensor=sensor,
            intrinsic_color=color,
            intrinsic_depth=depth,
            color_codec=COLOR_CODECS[color_codec],
            depth_codec=DEPTH_CODECS[depth_codec],
            color_size=(sides[0], sides[1]),
            depth_size=(sides[2], sides[3]),
            depth_per_m=per_m,
            frames=frames,
        )

    def _read(self, size: int, what: str) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise self._cut_off(what)
        return data

    def _cut_off(self, what: str) -> DatasetError:
        return DatasetError(
            f"{self.path}: is cut off in {what}; download or copy it again ({self._size} bytes are here)"
        )
