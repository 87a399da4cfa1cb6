"""Files that hold clouds: PLY, PCD, LAS and LAZ, KITTI's and nuScenes' scans, text, numpy arrays.

A cloud is read with all its fields, and copied with a class for each point while everything else in
its file stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files import kitti, las, npy, pcd, ply, text
from pointseg.files.columns import UNLABELLED_COLOR
from pointseg.files.errors import CloudFileError
from pointseg.files.origin import finite_points
from pointseg.files.ply_lists import read_faces
from pointseg.scene import Scene

__all__ = [
    "SUFFIXES",
    "UNLABELLED_COLOR",
    "CloudFileError",
    "check_labelled",
    "cloud_suffix",
    "finite_points",
    "read_cloud",
    "read_faces",
    "write_cloud",
    "write_labelled",
]

TEXT = (".txt", ".xyz", ".csv", ".asc")
READERS: dict[str, Callable[..., Scene]] = {
    ".ply": ply.read_ply,
    ".pcd.bin": kitti.read_bin,
    ".pcd": pcd.read_pcd,
    ".las": las.read_las,
    ".laz": las.read_las,
    ".bin": kitti.read_bin,
    ".npz": npy.read_npz,
    ".npy": npy.read_npy,
    **dict.fromkeys(TEXT, text.read_text),
}
WRITERS: dict[str, Callable[[Path, Scene], None]] = {
    ".ply": ply.write_ply,
    ".pcd.bin": kitti.write_bin,
    ".pcd": pcd.write_pcd,
    ".las": las.write_las,
    ".laz": las.write_las,
    ".bin": kitti.write_bin,
    ".npz": npy.write_npz,
    ".npy": npy.write_npy,
    **dict.fromkeys(TEXT, text.write_text),
}
LABELLERS: dict[str, Callable[..., None]] = {
    ".ply": ply.label_ply,
    ".pcd.bin": kitti.label_bin,
    ".pcd": pcd.label_pcd,
    ".las": las.label_las,
    ".laz": las.label_las,
    ".bin": kitti.label_bin,
    ".npz": npy.label_npz,
    ".npy": npy.label_npy,
    **dict.fromkeys(TEXT, text.label_text),
}
UNCOLORED = (".bin", ".pcd.bin")
SUFFIXES = tuple(READERS)
"""Endings of files that hold clouds; longer ones come before those that they end in."""


def cloud_suffix(path: Path) -> str | None:
    """The ending of a cloud's file, in small letters; "" for a folder of .npy files; None: no cloud."""
    if path.is_dir():
        return "" if npy.is_npy_folder(path) else None
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def read_cloud(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    strength_max: float | None = None,
) -> Scene:
    """A cloud with everything that its file holds.

    Positions that lie far from zero (over 10 km) are given relative to a round ``origin``, so that
    float32 keeps their millimetres. Colours, normals, intensities and labels are recognised by their
    usual names and become ``color``, ``normal``, ``strength``, ``segment`` and ``instance``; all
    other fields keep name and type. Points without a position (NaN) stay: see ``finite_points``.

    Args:
        path: a file, its ending says of which type (see ``SUFFIXES``), or a folder of ``.npy`` files.
        columns: names of the columns, for text without a line of names; other files have names.
        strength_max: the intensity that becomes a ``strength`` of 1, > 0; None: the scans of KITTI and
            nuScenes have theirs, others are guessed: see ``columns.strength_scale``.

    Raises:
        CloudFileError: it is not there, of no known type, or not what its ending says; malformed,
            cut off or without positions.
    """
    suffix = _known_suffix(path)
    try:
        if suffix == "":
            return npy.read_npy_folder(path, strength_max=strength_max)
        if suffix in TEXT:
            return text.read_text(path, columns, strength_max=strength_max)
        return READERS[suffix](path, strength_max=strength_max)
    except OSError as error:
        raise CloudFileError(path, f"could not be read: {error.strerror or error}") from error


def write_cloud(path: Path, scene: Scene) -> None:
    """A scene as a new file, of the type that its ending says; no ending: a folder of ``.npy`` files.

    Raises:
        CloudFileError: no known ending; what this type cannot hold; the system refuses to write.
    """
    suffix = _target_suffix(path)
    if suffix == "":
        npy.write_npy_folder(path, scene)
    else:
        WRITERS[suffix](path, scene)


def check_labelled(source: Path, target: Path, *, colored: bool = False) -> None:
    """Refuse what ``write_labelled`` could not write, before classes are found at some expense.

    Raises:
        CloudFileError: ``source`` is no cloud; ``target`` is of another type; colours, which its type
            cannot hold.
    """
    suffix = _known_suffix(source)
    wanted = _target_suffix(target) if suffix else ""
    alike = {suffix, wanted} <= {".las", ".laz"} or {suffix, wanted} <= set(TEXT)
    if suffix != wanted and not alike:
        kind = f"end in {suffix}" if suffix else "be a folder"
        raise CloudFileError(target, f"must {kind}, as {source.name} is of this type")
    if colored and suffix in UNCOLORED:  # nor for names, as its writer says
        raise CloudFileError(
            source, "a .bin scan has no place for colours or named fields; leave them out"
        )


def write_labelled(
    source: Path,
    target: Path,
    segment: NDArray[Any],
    *,
    colors: NDArray[np.uint8] | None = None,
    field: str | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    """Copy a cloud's file with a class for each point; every other field and the georeference stay.

    The classes stand in a field ``class`` (``pointseg_class`` if the file has a ``class`` already, and
    in LAS, whose ``classification`` stays as it is), those of ``.bin`` scans in a ``.label`` file beside
    the copy. The target appears whole or not at all.

    Args:
        source: the file that was read, or a folder of ``.npy`` files.
        target: the file to be, of the same type.
        segment: (N,) integers, a class for each point of the file, -1 where there is none.
        colors: (K, 3) colours of the classes; given, they replace the colours of the points.
        field: another name for the field of the classes.
        columns: as for ``read_cloud``; text that had no names gets these.

    Raises:
        CloudFileError: as ``read_cloud`` and ``write_cloud``; ``segment`` does not fit the file;
            ``target`` is of another type.
    """
    check_labelled(source, target, colored=colors is not None)
    suffix = _known_suffix(source)
    try:
        if suffix == "":
            npy.label_npy_folder(source, target, segment, colors=colors, field=field)
        elif suffix in TEXT:
            text.label_text(source, target, segment, colors=colors, field=field, columns=columns)
        else:
            LABELLERS[suffix](source, target, segment, colors=colors, field=field)
    except OSError as error:
        raise CloudFileError(source, f"could not be read: {error.strerror or error}") from error


def _known_suffix(path: Path) -> str:
    suffix = cloud_suffix(path)
    if suffix is not None and path.exists():
        return suffix
    if not path.exists():
        raise CloudFileError(path, "is not there")
    if path.is_dir():
        raise CloudFileError(
            path, "is a folder without coord.npy, thus not a cloud; name its files"
        )
    raise CloudFileError(path, f"is of no known type; known are {', '.join(SUFFIXES)}")


def _target_suffix(path: Path) -> str:
    if path.suffix == "" or path.is_dir():
        return ""
    suffix = cloud_suffix(path)
    if suffix is None:
        raise CloudFileError(path, f"must end in one of {', '.join(SUFFIXES)}, or be a folder")
    return suffix
