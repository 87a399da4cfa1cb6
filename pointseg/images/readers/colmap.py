"""Reads COLMAP's reconstructions in text form, ``cameras.txt`` and ``images.txt``.

Source: Schoenberger 2016, Structure-from-Motion Revisited; COLMAP's documentation of its output format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointseg.images.readers.frame import Frame, ImagesError, make_camera
from pointseg.images.readers.image_files import ImageFile

# Parameters of each camera model; f is both focal lengths.
MODELS = {
    "SIMPLE_PINHOLE": ("f", "cx", "cy"),
    "PINHOLE": ("fx", "fy", "cx", "cy"),
    "SIMPLE_RADIAL": ("f", "cx", "cy", "k1"),
    "RADIAL": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2"),
    "FULL_OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
}
CONVERT = "colmap model_converter --output_type TXT"


@dataclass(frozen=True)
class Lens:
    """One line of ``cameras.txt``."""

    size: tuple[int, int]
    """Height and width in pixels."""
    intrinsics: NDArray[np.float64]
    """(3, 3); the centre of the first pixel is at 0.5, as everywhere here."""
    distortion: tuple[float, ...] | None
    """k1, k2, p1, p2, k3."""


def read_colmap(model: Path, images: Path) -> tuple[Frame, ...]:
    """The images of a reconstruction that have a pose, sorted by name; no image is read.

    Args:
        model: folder with ``cameras.txt`` and ``images.txt``.
        images: folder that the names in ``images.txt`` are relative to.

    Raises:
        ImagesError: a file is missing or malformed, the model is binary, or a camera is not a pinhole with
            radial-tangential distortion.
    """
    lenses = read_lenses(model / "cameras.txt")
    path = model / "images.txt"
    found = []
    for number, words in _image_lines(path):
        who = f"{path}, line {number}"
        try:
            values = [float(word) for word in words[1:8]]
            lens = lenses.get(int(words[8]))
        except ValueError as error:
            raise ImagesError(f"{who}: has a value that is not a number: {error}") from error
        if lens is None:
            raise ImagesError(f"{who}: camera {words[8]} is not in {model / 'cameras.txt'}")
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation(values[:4], who), values[4:]
        camera = make_camera(
            f"{who} ({words[9]})",
            intrinsics=lens.intrinsics,
            size=lens.size,
            world_to_camera=pose,
            distortion=lens.distortion,
        )
        found.append(Frame(name=words[9], camera=camera, image=ImageFile(images / words[9])))
    return tuple(sorted(found, key=lambda frame: frame.name))


def read_lenses(path: Path) -> dict[int, Lens]:
    """Read the cameras of ``cameras.txt`` by number.

    Raises:
        ImagesError: see ``read_colmap``.
    """
    lenses = {}
    for number, line in _lines(path):
        if not line or line.startswith("#"):
            continue
        words = line.split()
        who = f"{path}, line {number}"
        names = MODELS.get(words[1]) if len(words) > 1 else None
        if names is None:
            kind = words[1] if len(words) > 1 else line
            raise ImagesError(
                f"{who}: camera model '{kind}' is none of {', '.join(MODELS)}; undistort the images first "
                f"(colmap image_undistorter), which gives PINHOLE"
            )
        try:
            width, height = int(words[2]), int(words[3])
            of = dict(zip(names, map(float, words[4:]), strict=True))
        except (ValueError, IndexError) as error:
            raise ImagesError(
                f"{who}: {words[1]} must have width, height and {', '.join(names)}: {error}"
            ) from error
        if any(of.get(key) for key in ("k4", "k5", "k6")):
            raise ImagesError(
                f"{who}: k4, k5 and k6 must be 0; undistort the images first (colmap image_undistorter)"
            )
        fx, fy = of.get("fx", of.get("f", math.nan)), of.get("fy", of.get("f", math.nan))
        distortion = tuple(of.get(key, 0.0) for key in ("k1", "k2", "p1", "p2", "k3"))
        lenses[int(words[0])] = Lens(
            (height, width),
            np.array([[fx, 0, of["cx"]], [0, fy, of["cy"]], [0, 0, 1]], np.float64),
            distortion if any(distortion) else None,
        )
    return lenses


def rotation(quaternion: list[float], who: str) -> NDArray[np.float64]:
    """(3, 3) rotation of a quaternion w, x, y, z of any length but 0.

    Raises:
        ImagesError: its length is 0 or not finite.
    """
    length = math.sqrt(sum(value * value for value in quaternion))
    if not 1e-6 < length < 1e6:
        raise ImagesError(
            f"{who}: its rotation must be a quaternion w, x, y, z of length 1, got {quaternion}"
        )
    w, x, y, z = (value / length for value in quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _image_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and words of the first line of each image; the second, its keypoints, may be empty."""
    keypoints = False
    for number, line in _lines(path):
        if line.startswith("#") or (not line and not keypoints):
            continue
        if keypoints:
            keypoints = False
            continue
        words = line.split(maxsplit=9)
        if len(words) != 10:
            raise ImagesError(
                f"{path}, line {number}: must have number, rotation (4), translation (3), camera and name of an "
                f"image, got {line[:80]!r}; each image needs a line of keypoints after it, perhaps an empty one"
            )
        yield number, words
        keypoints = True


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                yield number, line.strip()
    except FileNotFoundError as error:
        binary = path.with_suffix(".bin").is_file()
        hint = f"; the model is binary, convert it: {CONVERT}" if binary else ""
        raise ImagesError(f"{path}: is missing{hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ImagesError(f"{path}: cannot be read: {error}") from error
