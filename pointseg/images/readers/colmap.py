"""Reads COLMAP's reconstructions, text or binary: cameras and images with their poses.

Source: Schoenberger 2016, Structure-from-Motion Revisited; COLMAP's documentation of its output format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinomed3d.lifting import Lens
from pointseg.images.readers.colmap_binary import StoredCamera, StoredImage, read_binary
from pointseg.images.readers.frame import Frame, ImagesError, make_camera
from pointseg.images.readers.image_files import ImageFile
from pointseg.images.readers.notes import say_left_out

_FISHEYE = ("k1", "k2", "k3", "k4")
MODELS = {
    "SIMPLE_PINHOLE": ("f", "cx", "cy"),
    "PINHOLE": ("fx", "fy", "cx", "cy"),
    "SIMPLE_RADIAL": ("f", "cx", "cy", "k1"),
    "RADIAL": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2"),
    "FULL_OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "d1", "d2", "d3"),
    "SIMPLE_FISHEYE": ("f", "cx", "cy"),
    "FISHEYE": ("fx", "fy", "cx", "cy"),
    "SIMPLE_RADIAL_FISHEYE": ("f", "cx", "cy", "k1"),
    "RADIAL_FISHEYE": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV_FISHEYE": ("fx", "fy", "cx", "cy", *_FISHEYE),
    "THIN_PRISM_FISHEYE": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "s1", "s2"),
}
"""Parameters of each camera model in COLMAP's order; f is both focal lengths, others have the names of ``Lens``."""

UNDISTORT = "undistort the images first (colmap image_undistorter), which gives PINHOLE"


def read_colmap(model: Path, images: Path) -> tuple[Frame, ...]:
    """The images of a reconstruction that have a pose, sorted by name; no image is read.

    Images whose camera is of a model that cannot be projected with are left out, which a warning says with
    their number. Cameras that no image uses do not matter.

    Args:
        model: folder with ``cameras.txt`` and ``images.txt``, or else ``cameras.bin`` and ``images.bin``.
        images: folder that the names of images are relative to.

    Raises:
        ImagesError: a file is missing or malformed, or no image has a camera that can be used.
    """
    is_binary = _is_binary(model)
    stored, posed = read_binary(model) if is_binary else _read_text(model)
    usable: dict[int, tuple[NDArray[np.float64], Lens | None]] = {}
    refused: dict[int, str] = {}
    left_out: list[str] = []
    found = []
    for one in posed:
        if one.camera not in stored:
            name = "cameras.bin" if is_binary else "cameras.txt"
            raise ImagesError(f"{one.who}: camera {one.camera} is not in {model / name}")
        if one.camera not in usable and one.camera not in refused:
            try:
                usable[one.camera] = _intrinsics(stored[one.camera])
            except _UnsupportedError as error:
                refused[one.camera] = str(error)
        if one.camera in refused:
            left_out.append(refused[one.camera])
            continue
        intrinsics, lens = usable[one.camera]
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation(list(one.quaternion), one.who), one.translation
        camera = make_camera(
            f"{one.who} ({one.name})",
            intrinsics=intrinsics,
            size=stored[one.camera].size,
            world_to_camera=pose,
            distortion=lens,
        )
        found.append(Frame(name=one.name, camera=camera, image=ImageFile(images / one.name)))
    say_left_out(left_out, len(posed))
    return tuple(sorted(found, key=lambda frame: frame.name))


def _is_binary(model: Path) -> bool:
    """Whether only the binary form of a model is whole; of both, text is read."""
    text, binary = (
        all((model / f"{name}{ending}").is_file() for name in ("cameras", "images"))
        for ending in (".txt", ".bin")
    )
    return binary and not text


class _UnsupportedError(ImagesError):
    """A camera of a model that cannot be projected with."""


def _intrinsics(stored: StoredCamera) -> tuple[NDArray[np.float64], Lens | None]:
    """(3, 3) K of a camera as it is stored, the centre of the first pixel at 0.5 as everywhere here; its lens.

    Raises:
        _UnsupportedError: of a model that cannot be projected with.
        ImagesError: its numbers do not fit its model.
    """
    names = MODELS.get(stored.model)
    if names is None:
        raise _UnsupportedError(
            f"{stored.who}: camera model '{stored.model}' is none of {', '.join(MODELS)}; {UNDISTORT}"
        )
    if len(names) != len(stored.parameters):
        raise ImagesError(
            f"{stored.who}: {stored.model} must have width, height and {', '.join(names)}, it has "
            f"{len(stored.parameters)} parameters"
        )
    of = dict(zip(names, stored.parameters, strict=True))
    fx, fy = of.get("fx", of.get("f", math.nan)), of.get("fy", of.get("f", math.nan))
    try:
        lens = Lens(
            fisheye=stored.model.endswith("FISHEYE"),
            radial=tuple(of.get(key, 0.0) for key in _FISHEYE),
            divisor=tuple(of.get(key, 0.0) for key in ("d1", "d2", "d3")),
            tangential=(of.get("p1", 0.0), of.get("p2", 0.0)),
            prism=(of.get("s1", 0.0), of.get("s2", 0.0)),
        )
    except ValueError as error:
        raise ImagesError(f"{stored.who}: {error}") from error
    matrix = np.array([[fx, 0, of["cx"]], [0, fy, of["cy"]], [0, 0, 1]], np.float64)
    bent = lens if lens.bends else None
    # by itself, so that a message names the file of cameras and not that of images
    make_camera(
        stored.who, intrinsics=matrix, size=stored.size, world_to_camera=np.eye(4), distortion=bent
    )
    return matrix, bent


def _read_text(model: Path) -> tuple[dict[int, StoredCamera], list[StoredImage]]:
    """``cameras.txt`` and ``images.txt``.

    Raises:
        ImagesError: see ``read_colmap``.
    """
    cameras: dict[int, StoredCamera] = {}
    for number, line in _lines(model / "cameras.txt"):
        if not line or line.startswith("#"):
            continue
        words, who = line.split(), f"{model / 'cameras.txt'}, line {number}"
        try:
            width, height = int(words[2]), int(words[3])
            parameters = tuple(map(float, words[4:]))
            cameras[int(words[0])] = StoredCamera(who, words[1], (height, width), parameters)
        except (ValueError, IndexError) as error:
            kind = words[1] if len(words) > 1 else line[:40]
            names = ", ".join(MODELS.get(kind, ("its parameters",)))
            raise ImagesError(
                f"{who}: {kind} must have width, height and {names}: {error}"
            ) from error
    found = []
    for number, words in _image_lines(model / "images.txt"):
        who = f"{model / 'images.txt'}, line {number}"
        try:
            w, x, y, z, *translation = (float(word) for word in words[1:8])
            camera = int(words[8])
        except ValueError as error:
            raise ImagesError(f"{who}: has a value that is not a number: {error}") from error
        found.append(StoredImage(who, (w, x, y, z), tuple(translation), camera, words[9]))
    return cameras, found


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
    """Number and words of the line of each image.

    COLMAP writes a line of keypoints after each, which may be empty; who writes the file by hand often
    leaves it out. So a line of keypoints is one that is empty, or holds three numbers for each.
    """
    after_image = False
    for number, line in _lines(path):
        words = line.split(maxsplit=9)
        if not line or line.startswith("#"):
            continue
        if after_image and _are_keypoints(line):
            after_image = False
            continue
        if len(words) != 10:
            raise ImagesError(
                f"{path}, line {number}: must have number, rotation (4), translation (3), camera and name of an "
                f"image, or its keypoints (three numbers each), got {line[:80]!r}"
            )
        yield number, words
        after_image = True


def _are_keypoints(line: str) -> bool:
    """Whether a line holds numbers alone, three for each keypoint; an image's has ten words with a name."""
    words = line.split()
    if len(words) % 3:
        return False
    try:
        return all(math.isfinite(float(word)) for word in words)
    except ValueError:
        return False


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                yield number, line.strip()
    except FileNotFoundError as error:
        raise ImagesError(
            f"{path}: is missing, and the model has no binary files either"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ImagesError(f"{path}: cannot be read: {error}") from error
