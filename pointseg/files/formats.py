"""The types of files that hold clouds, by their endings, and how each is read and written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from dinomed3d.runtime.files.regular_file import special_kind
from pointseg.files.arrays import folder, npy, npz
from pointseg.files.labelling.labels import Labels
from pointseg.files.las.label import check_las, label_las
from pointseg.files.las.read import las_pieces, read_las
from pointseg.files.las.write import write_las
from pointseg.files.pcd.label import check_pcd, label_pcd
from pointseg.files.pcd.read import pcd_pieces, read_pcd
from pointseg.files.pcd.write import write_pcd
from pointseg.files.ply.label import label_as_ply, label_ply
from pointseg.files.ply.read import ply_pieces, read_ply
from pointseg.files.ply.write import write_ply
from pointseg.files.scans import kitti
from pointseg.files.scans.e57 import read_e57
from pointseg.files.scans.ptx import read_ptx
from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.pieces import Pieces, not_in_pieces
from pointseg.files.text.label import label_text
from pointseg.files.text.read import read_text
from pointseg.files.text.write import write_text
from pointseg.scene import Scene


def _holds_all(source: Path, labels: Labels) -> None:
    """Refuse nothing."""


class Format(NamedTuple):
    """How files of one type are read and written; each function raises ``CloudFileError``."""

    read: Callable[..., dict[str, NDArray[Any]]]
    """Gives the columns of a file by name, (N,) or (N, k) each; refuses what is malformed or cut off."""
    write: Callable[[Path, Scene], None]
    """Writes a scene as a new file; refuses what this type cannot hold."""
    label: Callable[..., None]
    """Copies a file (source, target, labels); refuses labels that do not fit the file or its type."""
    pieces: Callable[..., Pieces] = not_in_pieces
    """Opens a file to be read in pieces; refuses one that is only read as a whole."""
    check: Callable[[Path, Labels], None] = _holds_all
    """Refuses a file that cannot hold such labels, which are those of no points, before ``label`` has all of them."""
    takes_names: bool = False
    """Whether all but ``write`` and ``check`` take names of the columns last, or None, for files that may have none."""
    result: str = ""
    """The ending of labelled copies, where files of this type have no place for classes; "": its own."""


def _not_written(path: Path, scene: Scene) -> None:
    raise CloudFileError(path, "is of a type that is read, not written; write .ply or .laz")


def _read_alone(read: Callable[[Path], dict[str, NDArray[Any]]]) -> Format:
    """Files that are read alone: labelled copies are PLY."""

    def label(source: Path, target: Path, labels: Labels) -> None:
        label_as_ply(source, read(source), target, labels)

    return Format(read, _not_written, label, result=".ply")


BIN = Format(
    kitti.read_bin,
    kitti.write_bin,
    kitti.label_bin,
    kitti.bin_pieces,
    kitti.check_bin,
    takes_names=True,
)
LAS = Format(read_las, write_las, label_las, las_pieces, check_las)
TEXT = Format(read_text, write_text, label_text, takes_names=True)
FORMATS = {
    ".ply": Format(read_ply, write_ply, label_ply, ply_pieces),
    ".pcd.bin": BIN,
    ".pcd": Format(read_pcd, write_pcd, label_pcd, pcd_pieces, check_pcd),
    ".las": LAS,
    ".laz": LAS,
    ".bin": BIN,
    ".npz": Format(npz.read_npz, npz.write_npz, npz.label_npz),
    ".npy": Format(npy.read_npy, npy.write_npy, npy.label_npy, npy.npy_pieces),
    ".txt": TEXT,
    ".xyz": TEXT,
    ".csv": TEXT,
    ".asc": TEXT,
    ".pts": TEXT,
    ".ptx": _read_alone(read_ptx),
    ".e57": _read_alone(read_e57),
    "": Format(
        folder.read_npy_folder,
        folder.write_npy_folder,
        folder.label_npy_folder,
        folder.npy_folder_pieces,
    ),
}
LAS_SUFFIXES = tuple(suffix for suffix, form in FORMATS.items() if form is LAS)
TEXT_SUFFIXES = tuple(suffix for suffix, form in FORMATS.items() if form is TEXT)
SUFFIXES = tuple(suffix for suffix in FORMATS if suffix)
"""Endings of files that hold clouds; longer ones come before those that they end in."""


def cloud_suffix(path: Path) -> str | None:
    """The ending of a cloud's file, in small letters; "" for a folder of .npy files; None: no cloud."""
    if path.is_dir():
        return "" if folder.is_npy_folder(path) else None
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def result_suffix(path: Path) -> str:
    """The ending of a labelled copy of a cloud: its own, but of types without a place for classes."""
    suffix = cloud_suffix(path) or ""
    return FORMATS[suffix].result or suffix


def known_intensity_max(path: Path) -> float | None:
    """The largest intensity of files of this type; None: it differs."""
    return kitti.STRENGTH_MAX.get(cloud_suffix(path) or "")


def cloud_name(path: Path) -> str:
    """The name of a cloud: that of its file without the ending."""
    return path.name[: len(path.name) - len(cloud_suffix(path) or "")]


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files of a folder."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def source_suffix(path: Path) -> str:
    """The ending of a cloud that is to be read.

    Raises:
        CloudFileError: there is no such file, or it is of no known type.
    """
    suffix = cloud_suffix(path)
    if not path.exists():
        raise CloudFileError(path, "does not exist")
    kind = special_kind(path)
    if kind not in (None, "a folder"):
        raise CloudFileError(path, f"is {kind}, not a file; save it as a file")
    if suffix is not None:
        return suffix
    if path.is_dir():
        raise CloudFileError(
            path, "is a folder without coord.npy, which every folder of a cloud has; pass its files"
        )
    raise CloudFileError(path, f"has an unknown ending; known are {', '.join(SUFFIXES)}")


def target_suffix(path: Path) -> str:
    """The ending of a cloud that is to be written; "" for a folder of ``.npy`` files.

    Raises:
        CloudFileError: it is of no known type.
    """
    if path.suffix == "" or path.is_dir():
        return ""
    suffix = cloud_suffix(path)
    if suffix is None:
        raise CloudFileError(path, f"must end in one of {', '.join(SUFFIXES)}, or be a folder")
    return suffix
