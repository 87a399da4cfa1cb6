"""LAS files copied with changed points: scale, offset, coordinate system, records and text stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import IO

import laspy

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.files.las.header import LasHeader, read_header
from pointseg.files.las.header_text import COPC, original, restore_text
from pointseg.files.las.laspy_errors import errors_of
from pointseg.files.las.legend import is_replaced
from pointseg.files.las.read import CHUNK, opened, point_pieces
from pointseg.files.las.write import without_ranges

WITH_COLOR = {0: 2, 1: 3, 4: 5, 6: 7, 9: 10}
"""Point formats without colour, and the same with it."""


def rewrite(
    source: Path,
    target: Path,
    change: Callable[[laspy.LasData, int], laspy.LasData],
    what: str,
    records: Sequence[laspy.VLR] = (),
) -> None:
    """Copy a file piece by piece, without the index of a cloud-optimised one: a copy has other chunks.

    Args:
        source: the file to read.
        target: the file to be.
        change: makes new points of a piece and the number of its first point; may change the piece.
        what: begins messages about what cannot be done.
        records: further ones of the copy, which replace those of the file with the same purpose.
    """
    with opened(source) as reader, new_file(target) as part, open(part, "wb+") as stream:
        packed = target.suffix.lower() == ".laz"
        pieces = point_pieces(source, reader, CHUNK)
        copy_changed(source, reader, stream, pieces, change, what, packed=packed, made=records)


def copy_changed(
    source: Path,
    reader: laspy.LasReader,
    stream: IO[bytes],
    pieces: Iterable[laspy.ScaleAwarePointRecord],
    change: Callable[[laspy.LasData, int], laspy.LasData],
    what: str,
    *,
    packed: bool,
    made: Sequence[laspy.VLR] = (),
) -> None:
    """Write changed pieces of a file, at least one, with its records and its text; as ``rewrite``."""
    header, writer, start = read_header(source), None, 0
    with errors_of(source, "is damaged or cut off"):
        extended = reader.evlrs
    for records in (reader.header.vlrs, extended or []):
        records[:] = [record for record in records if not _is_left_out(header, record, made)]
    reader.header.vlrs.extend(made)
    for points in pieces:
        with errors_of(source, what):
            las = change(laspy.LasData(deepcopy(reader.header), points), start)
            start += len(points)
            if writer is None:
                without_ranges(las.header)
                writer = laspy.LasWriter(stream, las.header, do_compress=packed, closefd=False)
            writer.write_points(las.points)
    assert writer is not None
    with errors_of(source, what):
        if writer.header.version.minor >= 4 and extended is not None:
            writer.write_evlrs(extended)
        writer.close()
        restore_text(header, stream)


def _is_left_out(header: LasHeader, record: laspy.vlrs.BaseVLR, made: Sequence[laspy.VLR]) -> bool:
    """Whether a record is of the index of cloud-optimised LAZ, or is replaced."""
    found = original(header, record.user_id)
    return (found is not None and found.user == COPC) or is_replaced(found, made)


def with_color(las: laspy.LasData) -> laspy.LasData:
    """The same points in a format that has colours."""
    if las.point_format.id not in WITH_COLOR:
        return las
    return laspy.convert(las, point_format_id=WITH_COLOR[las.point_format.id])
