"""Clouds read from files of all types: as scenes, as columns, in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pointseg.files.columns.fields import fields_in
from pointseg.files.columns.scales import NOT_STATED, Scales, ValueRanges
from pointseg.files.columns.to_scene import scales_of, scene_of_fields
from pointseg.files.formats import FORMATS, TEXT, cloud_name, known_intensity_max, source_suffix
from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.noted_columns import NotedColumns
from pointseg.files.table.pieces import Pieces
from pointseg.files.text.read import replaced_names
from pointseg.scene import Scene


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
    form = FORMATS[source_suffix(path)]
    names = (columns,) if form.takes_names else ()
    try:
        if form is TEXT:
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
    if columns is None or FORMATS[source_suffix(path)] is not TEXT:
        return []
    replaced = ", ".join(replaced_names(path, columns))
    return [f"its names {replaced} were replaced: {', '.join(columns)}"] if replaced else []


def in_pieces(path: Path, columns: Sequence[str] | None = None) -> Pieces:
    """A cloud's file to be read in pieces; its columns are those that ``to_scene.scene_of`` takes.

    Raises:
        CloudFileError: as ``read_cloud``; it is of a type that is only read as a whole.
    """
    try:
        form = FORMATS[source_suffix(path)]
        return form.pieces(path, columns) if form.takes_names else form.pieces(path)
    except OSError as error:
        raise CloudFileError(path, f"could not be read: {error.strerror or error}") from error
