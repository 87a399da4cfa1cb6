"""Cameras and images of COLMAP's reconstructions as they are stored, and the reader of the binary form.

All numbers are little-endian and without padding. Source: COLMAP's documentation of its output format.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from pointseg.images.readers.frame import ImagesError

_MODELS = (
    ("SIMPLE_PINHOLE", 3),
    ("PINHOLE", 4),
    ("SIMPLE_RADIAL", 4),
    ("RADIAL", 5),
    ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12),
    ("FOV", 5),
    ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5),
    ("THIN_PRISM_FISHEYE", 12),
    ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    ("SIMPLE_DIVISION", 4),
    ("DIVISION", 5),
    ("SIMPLE_FISHEYE", 3),
    ("FISHEYE", 4),
    ("EUCM", 6),
    ("EQUIRECTANGULAR", 2),
)
"""Name and number of parameters of each model, by COLMAP's numbers; of later ones nothing can be read."""
_MOST_BYTES = 2**31
"""Keypoints included; larger models should be exported without them."""
_KEYPOINT_BYTES = 24


@dataclass(frozen=True)
class StoredCamera:
    """A camera as it is stored."""

    who: str
    """File and place, for messages."""
    model: str
    """COLMAP's name of its model."""
    size: tuple[int, int]
    """Height and width in pixels."""
    parameters: tuple[float, ...]
    """In COLMAP's order."""


@dataclass(frozen=True)
class StoredImage:
    """An image and its pose as they are stored."""

    who: str
    """File and place, for messages."""
    quaternion: tuple[float, float, float, float]
    """Rotation from world to camera: w, x, y, z."""
    translation: tuple[float, ...]
    """(3,) from world to camera."""
    camera: int
    """Number of its camera."""
    name: str
    """Path below the folder of images."""


def read_binary(model: Path) -> tuple[dict[int, StoredCamera], list[StoredImage]]:
    """``cameras.bin`` and ``images.bin``.

    Raises:
        ImagesError: a file cannot be read, is cut off, or names a camera model that is not known.
    """
    return _cameras(model / "cameras.bin"), _images(model / "images.bin")


class _Reader:
    """The bytes of a file, from front to back."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ImagesError(
                    f"{path}: has more than {_MOST_BYTES >> 30} GiB; export the model without keypoints as text"
                )
            self.content = path.read_bytes()
        except OSError as error:
            raise ImagesError(f"{path}: cannot be read: {error.strerror or error}") from error

    def take(self, form: str) -> tuple[int | float, ...]:
        """The next numbers."""
        size = struct.calcsize(f"<{form}")
        if self.at + size > len(self.content):
            raise ImagesError(f"{self.path}: is cut off at byte {len(self.content)}; copy it again")
        found = struct.unpack_from(f"<{form}", self.content, self.at)
        self.at += size
        return found

    def text(self) -> str:
        """The next text, which a zero byte ends."""
        end = self.content.find(b"\0", self.at)
        if end < 0:
            raise ImagesError(f"{self.path}: is cut off within a name; copy it again")
        found, self.at = self.content[self.at : end], end + 1
        try:
            return found.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ImagesError(
                f"{self.path}: has a name that is not UTF-8: {found!r:.80}"
            ) from error

    def skip(self, count: int) -> None:
        """Leave bytes out."""
        if self.at + count > len(self.content):
            raise ImagesError(f"{self.path}: is cut off at byte {len(self.content)}; copy it again")
        self.at += count

    def end(self) -> None:
        """Nothing may follow."""
        if self.at != len(self.content):
            raise ImagesError(
                f"{self.path}: has {len(self.content) - self.at} bytes more than its entries need; is it COLMAP's?"
            )


def _cameras(path: Path) -> dict[int, StoredCamera]:
    reader, found = _Reader(path), {}
    for place in range(int(reader.take("Q")[0])):
        number, model, width, height = (int(value) for value in reader.take("IiQQ"))
        who = f"{path}, camera {number}"
        if not 0 <= model < len(_MODELS):
            raise ImagesError(
                f"{who} (entry {place + 1}): its model has the number {model}, of which nothing is known here; "
                "convert the model to text (colmap model_converter --output_type TXT)"
            )
        name, count = _MODELS[model]
        parameters = tuple(float(value) for value in reader.take(f"{count}d"))
        found[number] = StoredCamera(who, name, (height, width), parameters)
    reader.end()
    return found


def _images(path: Path) -> list[StoredImage]:
    reader, found = _Reader(path), []
    for _ in range(int(reader.take("Q")[0])):
        number = int(reader.take("I")[0])
        w, x, y, z, *translation = (float(value) for value in reader.take("7d"))
        camera, name = int(reader.take("I")[0]), reader.text()
        reader.skip(int(reader.take("Q")[0]) * _KEYPOINT_BYTES)
        who = f"{path}, image {number}"
        found.append(StoredImage(who, (w, x, y, z), tuple(translation), camera, name))
    reader.end()
    return found
