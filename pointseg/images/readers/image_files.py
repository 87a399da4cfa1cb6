"""Reads images and depth maps from files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.arrays.array_file import ArrayFile
from pointseg.images.readers.frame import ImagesError
from pointseg.images.readers.notes import say_once
from pointseg.images.readers.pillow import DAMAGED, opened_image, unreadable

ENDINGS = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG", ".tif", ".tiff", ".webp", ".bmp")
"""What is tried where a name has no ending."""
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")
"""Pillow's modes that convert to 8-bit RGB without loss of range."""


@dataclass(frozen=True)
class ImageFile:
    """An 8-bit image that Pillow reads; pixels as stored, ``Frame.read_image`` may turn them."""

    path: Path
    """The file."""

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> NDArray[np.uint8]:
        """See ImageSource.read."""
        with opened_image(self.path, self.path) as image:
            if image.mode not in EIGHT_BITS:
                raise ImagesError(
                    f"{self.path}: must be a colour or grey image of 8 bits, has mode {image.mode}; "
                    f"is it a depth map?"
                )
            self._note_orientation(_orientation(image), image.width == image.height)
            return np.asarray(image.convert("RGB"))

    def orientation(self) -> int:
        """See StoresOrientation.orientation."""
        with opened_image(self.path, self.path) as image:
            return _orientation(image)

    def key(self) -> str:
        """See ImageSource.key: path, bytes and time of the last change."""
        return file_key(self.path)

    def _note_orientation(self, orientation: int, is_square: bool) -> None:
        """Say where the size cannot tell whether a camera was calibrated for pixels as stored or turned."""
        if orientation in (2, 3, 4) or (orientation != 1 and is_square):
            say_once(
                f"{self.path.parent}: images with EXIF orientation {orientation} are read as stored, as by COLMAP and "
                "nerfstudio, since their size does not tell; if poses and K are of turned images, turn the files"
            )


def _orientation(image: Any) -> int:
    """EXIF's orientation of an open image; 1 where there is none, or it is damaged."""
    try:
        found = image.getexif().get(0x0112, 1)
    except DAMAGED:
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


@dataclass(frozen=True)
class DepthFile:
    """A depth map with one number per pixel: 16-bit PNG, TIFF, or a numpy array."""

    path: Path
    """The file."""
    scale: float = 1000.0
    """Units per metre: 1000 for millimetres."""
    missing: tuple[float, ...] = ()
    """Values that mean unknown, as well as 0, negative values and what is not finite."""

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
        if self.path.suffix.lower() != ".npy":
            with opened_image(self.path, self.path, what="depth map") as image:
                return np.asarray(image)
        try:
            file = ArrayFile(self.path)
            return file.rows(0, len(file))
        except (OSError, ValueError) as error:
            raise unreadable(self.path, error, "depth map") from error


def find_image(folder: Path, name: str, who: str, *, deep: bool = False) -> Path:
    """The file of an image whose name may lack its ending; ``folder / name`` if there is none.

    Args:
        folder: in which it is.
        name: of the file, with or without folders and an ending.
        who: names it in messages.
        deep: whether it may be in any folder below.

    Raises:
        ImagesError: several files have this name, or none can have it.
    """
    file = folder / name.replace("\\", "/")
    try:
        if file.is_file():
            return file
        named = (file.with_name(file.name + ending) for ending in ENDINGS)
        found = [each for each in named if each.is_file()]
    except OSError as error:
        raise ImagesError(f"{who}: no file can be called {name!r:.80}: {error.strerror}") from error
    if not found and deep:
        found = list(_below(folder).get(file.name.lower(), ()))
    if len({str(each).lower() for each in found}) > 1:
        shown = " and ".join(map(str, found[:2]))
        raise ImagesError(f"{who}: {shown} are both there; write the whole name")
    return found[0] if found else file


@lru_cache(maxsize=8)
def _below(folder: Path) -> dict[str, list[Path]]:
    """The images below a folder by their names in lower case, with and without ending."""
    found: dict[str, list[Path]] = {}
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            stem, ending = os.path.splitext(name)
            if ending.lower() in ENDINGS:
                for key in (stem.lower(), name.lower()):
                    found.setdefault(key, []).append(Path(place, name))
    return found


def image_size(path: Path) -> tuple[int, int]:
    """Read the height and width of an image from its header.

    Raises:
        ImagesError: it is missing or not an image.
    """
    with opened_image(path, path) as image:
        return image.height, image.width


def file_key(path: Path) -> str:
    """Path, length and time of the last change of a file, as one text.

    Raises:
        ImagesError: it is missing.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # a name with a zero byte
        raise unreadable(path, error, "image") from error
    return f"{os.path.abspath(path)}|{found.st_size}|{found.st_mtime_ns}"


def explain_changed_key(key: str, others: Iterable[str]) -> str:
    """What has become of a file whose key is not among some others.

    Args:
        key: of the file as it is now (``file_key``).
        others: keys of the files that something was made from.

    Returns:
        That the file was changed or copied, or that one of its name and length was elsewhere (of several the
        one with most folders in common, from the file upwards); "" if nothing looks like it.
    """
    path, size, _ = _split_key(key)
    best, most = None, 0
    for other in others:
        other_path, other_size, _ = _split_key(other)
        if other == key or not other_path.parts:
            continue
        if other_path == path:
            what = "was copied or touched" if other_size == size else "has another content"
            return f"{path} {what} since it was encoded"
        pairs = zip(reversed(path.parts), reversed(other_path.parts), strict=False)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        if other_size == size and common > most:
            best, most = other_path, common
    return "" if best is None else f"the data was moved or copied: it was encoded as {best}"


def _split_key(key: str) -> tuple[Path, str, str]:
    """Path, bytes and time of a key; an empty path if it is none."""
    path, size, time = ["", "", *key.rsplit("|", 2)][-3:] if key.count("|") > 1 else ("", "", "")
    return Path(path), size, time
