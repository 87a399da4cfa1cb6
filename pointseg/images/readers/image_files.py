"""Images and depth maps in files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.images.readers.frame import ImagesError

EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")
"""Pillow's modes that become 8-bit red, green, blue without losing their range."""


@dataclass(frozen=True)
class ImageFile:
    """A PNG, JPEG or another file that Pillow reads, of 8 bits; pixels as stored: EXIF turns nothing."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> NDArray[np.uint8]:
        """See ImageSource.read."""
        from PIL import Image

        try:
            with Image.open(self.path) as image:
                if image.mode not in EIGHT_BITS:
                    raise ImagesError(
                        f"{self.path}: must be a colour or grey image of 8 bits, has mode {image.mode}; "
                        f"is it a depth map?"
                    )
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise _unreadable(self.path, error, "image") from error

    def key(self) -> str:
        """See ImageSource.key: path, bytes and time of the last change."""
        return file_key(self.path)


@dataclass(frozen=True)
class DepthFile:
    """A depth map with one number per pixel: 16-bit PNG, TIFF, or a numpy array."""

    path: Path
    scale: float = 1000.0
    """Units per metre: 1000 for millimetres."""
    missing: tuple[float, ...] = ()
    """Values that mean unknown, besides 0 and what is not finite or below 0."""

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> NDArray[np.float32]:
        """See DepthSource.read."""
        raw = self._raw()
        if raw.ndim != 2 or raw.dtype.kind not in "iuf" or 0 in raw.shape:
            raise ImagesError(
                f"{self.path}: a depth map must have one number per pixel, has {raw.shape} {raw.dtype}"
            )
        with np.errstate(over="ignore"):
            depth = raw.astype(np.float32)
        known = np.isfinite(depth) & (depth > 0)
        for value in self.missing:
            known &= raw != value
        return np.where(known, depth / np.float32(self.scale), np.float32(0))

    def _raw(self) -> NDArray[Any]:
        from PIL import Image

        try:
            if self.path.suffix.lower() == ".npy":
                found = np.load(self.path, allow_pickle=False)
                return np.asarray(found)
            with Image.open(self.path) as image:
                return np.asarray(image)
        except (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise _unreadable(self.path, error, "depth map") from error


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image, from its header.

    Raises:
        ImagesError: it is missing, or no image.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error, "image") from error


def file_key(path: Path) -> str:
    """Where a file lies, how long it is and when it was last written.

    Raises:
        ImagesError: it is missing.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error, "image") from error
    return f"{os.path.abspath(path)}|{found.st_size}|{found.st_mtime_ns}"


def moved_since(key: str, held: Iterable[str]) -> str:
    """In words, what has become of a file whose key is not among those that are held.

    Args:
        key: of the file as it lies now (``file_key``).
        held: keys of the files that something was made from.

    Returns:
        That it was written or copied again, or that one of its name and length lay elsewhere (of several
        the one with most folders in common, from the file upwards); "" if nothing looks like it.
    """
    now = _parted(key)
    if now is None:
        return ""
    path, size, _ = now
    best, most = None, 0
    for each in held:
        found = _parted(each)
        if found is None or each == key:
            continue
        if found[0] == path:
            what = "was copied or touched" if found[1] == size else "has another content"
            return f"{path} {what} since it was encoded"
        alike = _common_end(path, found[0])
        if found[1] == size and alike > most:
            best, most = found[0], alike
    return "" if best is None else f"the data was moved or copied since: it was encoded as {best}"


def _parted(key: str) -> tuple[Path, str, str] | None:
    """Path, bytes and time of a key."""
    parts = key.rsplit("|", 2)
    return (Path(parts[0]), parts[1], parts[2]) if len(parts) == 3 else None


def _common_end(one: Path, two: Path) -> int:
    """How many names both paths end with."""
    pairs = list(zip(reversed(one.parts), reversed(two.parts), strict=False))
    return next((number for number, (a, b) in enumerate(pairs) if a != b), len(pairs))


def _unreadable(path: Path, error: BaseException, what: str) -> ImagesError:
    if isinstance(error, ImagesError):
        return error
    if isinstance(error, FileNotFoundError):
        return ImagesError(
            f"{path}: this {what} is missing; unpack or copy it so that it lies there"
        )
    reason = " ".join(str(error).split()) or type(error).__name__
    return ImagesError(f"{path}: this {what} cannot be read: {reason}; copy it again")
