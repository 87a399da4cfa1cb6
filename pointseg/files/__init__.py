"""Files that hold clouds: PLY, PCD, LAS and LAZ, E57, KITTI's and nuScenes' scans, text, PTX, numpy arrays.

A cloud is read with all its fields, and copied with a class for each point while everything else in
its file stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import WriteError
from dinomed3d.runtime.regular_file import special_kind
from pointseg.files import e57, kitti, las, npy, pcd, ply, ptx, text
from pointseg.files.certainty import MEASURES, SavedCertainty
from pointseg.files.columns import fields_in
from pointseg.files.errors import CloudFileError
from pointseg.files.file_scene import scales_of, scene_of_fields
from pointseg.files.labels import UNLABELLED_COLOR, Labels, SavedLabels
from pointseg.files.noted import NotedColumns
from pointseg.files.origin import finite_points
from pointseg.files.pieces import Pieces, not_in_pieces
from pointseg.files.ply_faces import read_faces
from pointseg.files.ply_header import legend_lines
from pointseg.files.saved_rows import SavedRows
from pointseg.files.scales import NOT_STATED, Scales, ValueRanges
from pointseg.scene import Scene

__all__ = [
    "LAS_SUFFIXES",
    "SUFFIXES",
    "UNLABELLED_COLOR",
    "CloudFileError",
    "SavedLabels",
    "Scales",
    "ValueRanges",
    "check_labelled",
    "check_painted",
    "cloud_name",
    "cloud_suffix",
    "finite_points",
    "in_pieces",
    "known_intensity_max",
    "name_notes",
    "read_cloud",
    "read_columns",
    "read_faces",
    "read_scaled",
    "result_suffix",
    "write_cloud",
    "write_labelled",
    "write_painted",
]


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
    takes_names: bool = False
    """Whether all three take names of the columns last, or None, for files that may have none."""
    result: str = ""
    """The ending of labelled copies, where files of this type have no place for classes; "": its own."""


def _not_written(path: Path, scene: Scene) -> None:
    raise CloudFileError(path, "is of a type that is read, not written; write .ply or .laz")


def _label_as_ply(source: Path, target: Path, labels: Labels) -> None:
    """Write the points of a file that has no place for classes as PLY, with a class for each."""
    scene = read_cloud(source)
    checked = labels.checked(source, len(scene))
    field = checked.field_in(source, scene.fields)
    new: dict[str, NDArray[Any]] = {field: checked.whole}
    more = zip(checked.added_values(), checked.added.values(), strict=True)
    found = [values.astype(kind)[:, None] for values, kind in more]  # as scenes have heights
    new.update(zip(checked.added_names(scene.fields), found, strict=True))
    if checked.colors is not None:
        new["color"] = checked.paint(checked.whole).astype(np.float32)
    comments = legend_lines(field, checked.legend)
    ply.write_ply(target, scene.without("segment").with_fields(**new), comments)


_BIN = Format(kitti.read_bin, kitti.write_bin, kitti.label_bin, kitti.bin_pieces, True)
_LAS = Format(las.read_las, las.write_las, las.label_las, las.las_pieces)
_TEXT = Format(text.read_text, text.write_text, text.label_text, takes_names=True)
FORMATS = {
    ".ply": Format(ply.read_ply, ply.write_ply, ply.label_ply, ply.ply_pieces),
    ".pcd.bin": _BIN,
    ".pcd": Format(pcd.read_pcd, pcd.write_pcd, pcd.label_pcd, pcd.pcd_pieces),
    ".las": _LAS,
    ".laz": _LAS,
    ".bin": _BIN,
    ".npz": Format(npy.read_npz, npy.write_npz, npy.label_npz),
    ".npy": Format(npy.read_npy, npy.write_npy, npy.label_npy, npy.npy_pieces),
    ".txt": _TEXT,
    ".xyz": _TEXT,
    ".csv": _TEXT,
    ".asc": _TEXT,
    ".pts": _TEXT,
    ".ptx": Format(ptx.read_ptx, _not_written, _label_as_ply, result=".ply"),
    ".e57": Format(e57.read_e57, _not_written, _label_as_ply, result=".ply"),
    "": Format(
        npy.read_npy_folder, npy.write_npy_folder, npy.label_npy_folder, npy.npy_folder_pieces
    ),
}
LAS_SUFFIXES = tuple(suffix for suffix, form in FORMATS.items() if form is _LAS)
SUFFIXES = tuple(suffix for suffix in FORMATS if suffix)
"""Endings of files that hold clouds; longer ones come before those that they end in."""


def cloud_suffix(path: Path) -> str | None:
    """The ending of a cloud's file, in small letters; "" for a folder of .npy files; None: no cloud."""
    if path.is_dir():
        return "" if npy.is_npy_folder(path) else None
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def read_cloud(
    path: Path, *, columns: Sequence[str] | None = None, stated: ValueRanges = NOT_STATED
) -> Scene:
    """A cloud with everything that its file holds.

    Positions that lie far from zero (over 10 km) are given relative to a round ``origin``, so that
    float32 keeps their millimetres. Colours, normals, intensities and labels are recognised by their
    usual names and become ``color``, ``normal``, ``strength``, ``segment`` and ``instance``; all
    other fields keep name and type. Colours, intensities, normals and echoes that nobody filled are left out.
    Points without a position (NaN) stay: see ``finite_points``.

    Args:
        path: a file, its ending says of which type (see ``SUFFIXES``), or a folder of ``.npy`` files.
        columns: names of the columns of text and ``.bin`` scans, see ``given_names``; other files have names.
        stated: ranges of colours and intensities; without them, those of the type of file (bytes, scans of KITTI
            and nuScenes) or what nearly all points stay in: see ``scales``.

    Raises:
        CloudFileError: there is no such file, it is of no known type, or not what its ending says;
            malformed, cut off or without positions.
    """
    return read_scaled(path, columns=columns, stated=stated)[0]


def read_scaled(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    stated: ValueRanges = NOT_STATED,
    first: int | None = None,
) -> tuple[Scene, Scales]:
    """As ``read_cloud``, and how its values were understood.

    Args:
        path: as ``read_cloud``.
        columns: likewise.
        stated: likewise.
        first: points to read; what the header says of the others is checked all the same. None: all.

    Raises:
        CloudFileError: as ``read_cloud``; the first points of a file that is only read as a whole.
    """
    found = read_columns(path, columns, first)
    fields = fields_in(path, found)
    scales = scales_of(fields, stated, known_intensity_max=known_intensity_max(path))
    if isinstance(found, NotedColumns) and found.notes:
        scales = replace(scales, notes={**scales.notes, "coord": found.notes})
    return scene_of_fields(fields, name=cloud_name(path), scales=scales), scales


def read_columns(
    path: Path, columns: Sequence[str] | None = None, first: int | None = None
) -> dict[str, NDArray[Any]]:
    """The columns of a cloud's file as it has them.

    Args:
        path: as ``read_cloud``.
        columns: likewise.
        first: as ``read_scaled``.

    Raises:
        CloudFileError: as ``read_scaled``, but for positions, which need not be there.
    """
    form = FORMATS[_known_suffix(path)]
    names = (columns,) if form.takes_names else ()
    try:
        if form is _TEXT:
            return form.read(path, columns, first)
        if first is None:
            return form.read(path, *names)
        return dict(next(iter(form.pieces(path, *names).read(first))))
    except OSError as error:
        raise CloudFileError(path, f"could not be read: {error.strerror or error}") from error


def name_notes(path: Path, columns: Sequence[str] | None) -> list[str]:
    """What the user should know of names that are given to columns.

    Raises:
        CloudFileError: as ``read_cloud``.
    """
    if columns is None or FORMATS[_known_suffix(path)] is not _TEXT:
        return []
    replaced = ", ".join(text.replaced_names(path, columns))
    return [f"its names {replaced} were replaced: {', '.join(columns)}"] if replaced else []


def in_pieces(path: Path, columns: Sequence[str] | None = None) -> Pieces:
    """A cloud's file to be read in pieces; its columns are those that ``file_scene.scene_of`` takes.

    Raises:
        CloudFileError: as ``read_cloud``; it is of a type that is only read as a whole.
    """
    try:
        form = FORMATS[_known_suffix(path)]
        return form.pieces(path, columns) if form.takes_names else form.pieces(path)
    except OSError as error:
        raise CloudFileError(path, f"could not be read: {error.strerror or error}") from error


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


def write_cloud(path: Path, scene: Scene) -> None:
    """A scene as a new file, of the type that its ending says; no ending: a folder of ``.npy`` files.

    Raises:
        CloudFileError: no known ending; what this type cannot hold.
        WriteError: the system refuses to write.
    """
    FORMATS[_target_suffix(path)].write(path, scene)


def check_labelled(
    source: Path,
    target: Path,
    *,
    colored: bool = False,
    codes: tuple[int, ...] | None = None,
    measured: bool = False,
    heights: bool = False,
) -> None:
    """Refuse what ``write_labelled`` could not write, before classes are found at some expense.

    Args:
        source: the file that is read.
        target: the file to be.
        colored: whether the points get colours of classes.
        codes: as for ``write_labelled``.
        measured: whether the points get fields that tell how sure their classes are.
        heights: whether they get a field for their height above the ground.

    Raises:
        CloudFileError: ``source`` is no cloud; ``target`` is of another type; colours, codes or fields, which its
            type cannot hold; a header that could be read, but not written.
    """
    _known_suffix(source)
    suffix = result_suffix(source)
    wanted = _target_suffix(target) if suffix else ""
    same_type = FORMATS[suffix] is FORMATS[wanted] and FORMATS[suffix] is not _BIN
    if suffix != wanted and not same_type:
        kind = f"end in {suffix}" if suffix else "be a folder"
        raise CloudFileError(target, f"must {kind}, for results of {source.name}")
    if colored and FORMATS[suffix] is _BIN:
        raise CloudFileError(source, "a .bin scan cannot hold colours; omit them")
    like = Labels(
        np.empty(0, np.int32),
        codes=codes,
        certainty=np.empty((0, len(MEASURES)), np.uint16) if measured else None,
        heights=np.empty(0, np.float32) if heights else None,
    )
    if like.added and FORMATS[suffix] is _BIN:
        fields = ", ".join(like.added)
        raise CloudFileError(
            source,
            f"a .bin scan has no place for {fields}; omit --confidence, --height and --write-classification, or "
            "save it as .ply",
        )
    if FORMATS[suffix] is _LAS:
        las.check_las(source, colored=colored, codes=codes, measured=measured, heights=heights)
    elif suffix == ".npy":
        npy.check_npy(source, colored=colored, named=bool(like.added))
    elif suffix == ".pcd":
        pcd.check_pcd(source, like)


def write_labelled(
    source: Path,
    target: Path,
    segment: NDArray[Any] | SavedLabels,
    *,
    colors: NDArray[np.uint8] | None = None,
    field: str | None = None,
    columns: Sequence[str] | None = None,
    codes: tuple[int, ...] | None = None,
    certainty: NDArray[np.uint16] | SavedCertainty | None = None,
    legend: Sequence[str] = (),
    heights: NDArray[np.float32] | SavedRows | None = None,
    keeps_former: bool = True,
) -> None:
    """Copy a cloud's file with a class for each point; every other field and the georeference stay.

    The classes stand in a field ``class`` (``pointseg_class`` if the file has a ``class`` already, and
    in LAS, whose ``classification`` stays as it is), those of ``.bin`` scans in a ``.label`` file next to
    the copy. The target appears whole or not at all.

    Args:
        source: the file that was read, or a folder of ``.npy`` files.
        target: the file to be, of the same type.
        segment: (N,) integers, a class for each point of the file, -1 where there is none.
        colors: (K, 3) colours of the classes; given, they replace the colours of the points.
        field: another name for the field of the classes.
        columns: as for ``read_cloud``; text that had no names gets these.
        codes: K ASPRS codes of the classes: they are written into ``classification`` as well, in LAS the dimension,
            whose former values stay in ``input_classification``, in others a field, named as the classes are.
        certainty: (N, 3) how sure the classes are, as ``certainty.MEASURES``, in steps of 1 / ``STEPS``: they become
            fields ``confidence``, ``entropy`` and ``margin``, named as the classes are where these are taken.
        legend: names of the K classes: records of LAS and comments of PLY tell them, the description of the field in
            LAS as many as it holds.
        heights: (N,) metres above the ground, for a field ``height_above_ground``, named as the classes are.
        keeps_former: whether former values of ``classification`` stay at all.

    Raises:
        CloudFileError: as ``read_cloud`` and ``write_cloud``; ``segment`` does not fit the file;
            ``target`` is of another type.
        WriteError: the system refuses to write.
    """
    check_labelled(
        source,
        target,
        colored=colors is not None,
        codes=codes,
        measured=certainty is not None,
        heights=heights is not None,
    )
    form = FORMATS[_known_suffix(source)]
    labels = Labels(segment, colors, field, codes, certainty, tuple(legend), heights, keeps_former)
    try:
        if form.takes_names:
            form.label(source, target, labels, columns)
        else:
            form.label(source, target, labels)
    except WriteError:
        raise
    except OSError as error:
        raise CloudFileError(source, f"could not be read: {error.strerror or error}") from error


def check_painted(scene: Scene, target: Path) -> None:
    """Refuse what ``write_painted`` could not write, before colours are found at some expense.

    Raises:
        CloudFileError: no known ending, a type without colours, points without a position in LAS.
    """
    form = FORMATS[_target_suffix(target)]
    if form is _BIN:
        raise CloudFileError(target, "a .bin scan cannot hold colours; write .ply or .laz")
    if form is _LAS and not np.isfinite(scene.coord).all():
        raise CloudFileError(
            target, f"LAS holds no points without a position, {scene.name} has some; write .ply"
        )


def write_painted(
    source: Path,
    target: Path,
    scene: Scene,
    colors: NDArray[np.uint8],
    fields: Mapping[str, NDArray[Any]],
) -> None:
    """Write a cloud in other colours and with further fields, in its own coordinates.

    LAS from LAS is a copy: scale, offset, coordinate system and all dimensions stay as they are. Otherwise
    the scene with all of its fields is written anew.

    Args:
        source: the file that was read.
        target: the file to be; its ending says of which type.
        scene: what was read.
        colors: (N, 3) red, green, blue, 0 to 255, which replace the colours of the points.
        fields: (N,) further fields by name; one of the same name is replaced.

    Raises:
        CloudFileError: as ``check_painted`` and ``write_cloud``.
        WriteError: the system refuses to write.
    """
    check_painted(scene, target)
    if FORMATS[_target_suffix(target)] is _LAS and FORMATS.get(cloud_suffix(source) or "") is _LAS:
        las.paint_las(source, target, colors, fields)
        return
    write_cloud(target, scene.with_fields(color=colors.astype(np.float32), **fields))


def _known_suffix(path: Path) -> str:
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


def _target_suffix(path: Path) -> str:
    if path.suffix == "" or path.is_dir():
        return ""
    suffix = cloud_suffix(path)
    if suffix is None:
        raise CloudFileError(path, f"must end in one of {', '.join(SUFFIXES)}, or be a folder")
    return suffix
