"""LAS and LAZ files through laspy: every dimension, read in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import laspy
import numpy as np
from laspy.point.dims import DimensionInfo
from numpy.typing import NDArray

from pointseg.files.las.box import Outside
from pointseg.files.las.header import read_header
from pointseg.files.las.header_text import COPC, open_view
from pointseg.files.las.laspy_errors import errors_of
from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.pieces import Pieces

CHUNK = 1_000_000
"""Points that are decompressed at once: a wrong number in the header costs no more memory."""
AXES = ("X", "Y", "Z")


def read_las(path: Path) -> dict[str, NDArray[Any]]:
    """The dimensions of a LAS or LAZ file, with the positions as one (N, 3) ``xyz``."""
    with opened(path) as reader:
        parts = [points.array for points in point_pieces(path, reader, CHUNK)]
        points = laspy.ScaleAwarePointRecord.zeros(0, header=reader.header)
        points.array = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return _columns(path, points)


def las_pieces(path: Path) -> Pieces:
    """A LAS or LAZ file in pieces."""

    def read(size: int) -> Iterator[dict[str, NDArray[Any]]]:
        with opened(path) as reader:
            for points in point_pieces(path, reader, size):
                yield _columns(path, points)

    with opened(path) as reader:
        return Pieces(reader.header.point_count, reader.header.point_format.size, read)


def is_copc(path: Path) -> bool:
    """Whether a file is cloud-optimised LAZ: its first record, right behind the header, says so.

    Source: COPC specification 1.0.
    """
    with open(path, "rb") as stream:
        head = stream.read(377 + 16)
    return head[:4] == b"LASF" and head[377:].rstrip(b"\0") == COPC


@contextmanager
def opened(path: Path) -> Iterator[laspy.LasReader]:
    """A reader of a file whose header was checked; it sees text as ``header_text`` shows it."""
    header = read_header(path)
    # One thread: the parallel reader believes the table of chunks at the end of a file, and a damaged
    # table makes it ask for memory until the system ends the whole process.
    with open_view(header) as view:
        with errors_of(path, "is damaged or cut off"):
            reader = laspy.open(view, laz_backend=laspy.LazBackend.Lazrs)
        _name_bytes(reader.header.point_format)
        scales = np.asarray(reader.header.scales)
        if not np.isfinite([*scales, *reader.header.offsets]).all() or (scales == 0).any():
            raise CloudFileError(
                path, "its header has a scale of 0, or an offset that is not finite"
            )
        yield reader


def _name_bytes(form: laspy.PointFormat) -> None:
    """Take bytes of points that no record describes for whole numbers, which a copy can describe.

    laspy describes more than three of them as undocumented, in a way that it cannot read again.
    """
    dimensions = []
    for dimension in form.dimensions:
        left = dimension.num_bytes
        if dimension.is_standard or dimension.num_elements <= 3:
            left = 0
            dimensions.append(dimension)
        number = 0
        while left:
            size = next(size for size in (8, 4, 2, 1) if size <= left)
            name = f"{dimension.name}_{number}"
            part = DimensionInfo.from_dtype(name, np.dtype(f"u{size}"), is_standard=False)
            dimensions.append(part)
            left, number = left - size, number + 1
    form.dimensions = dimensions


def point_pieces(
    path: Path, reader: laspy.LasReader, size: int
) -> Iterator[laspy.ScaleAwarePointRecord]:
    """Points in pieces of ``size``; of no points there is one piece."""
    count, outside = reader.header.point_count, Outside(path, reader.header)
    if count == 0:
        yield laspy.ScaleAwarePointRecord.zeros(0, header=reader.header)
    while reader.points_read < count:
        read = reader.points_read
        with errors_of(path, "is damaged or cut off"):
            points = reader.read_points(size)
        if len(points) == 0:
            raise CloudFileError(path, f"is cut off after {read} points")
        outside.add(points, is_last=reader.points_read >= count)
        yield points


def _columns(path: Path, points: laspy.ScaleAwarePointRecord) -> dict[str, NDArray[Any]]:
    with errors_of(path, "is damaged"):
        names = [name for name in points.point_format.dimension_names if name not in AXES]
        columns = {name: np.array(points[name]) for name in names}
        xyz = np.empty((len(points), 3))
        for axis, raw in enumerate(AXES):
            xyz[:, axis] = points[raw] * points.scales[axis] + points.offsets[axis]
    return {"xyz": xyz, **columns}
