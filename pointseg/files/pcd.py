"""PCD files of the Point Cloud Library: text, binary and compressed; organised clouds stay organised."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import lzf
import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from pointseg.files.columns import columns_of, storable
from pointseg.files.errors import CloudFileError
from pointseg.files.labels import Labels
from pointseg.files.pcd_header import PADDING, Field, Header, extended, read_header
from pointseg.files.pieces import PIECE, Pieces, not_in_pieces
from pointseg.files.rows import (
    as_rows,
    copy_rows,
    parse_rows,
    read_rows,
    require_bytes,
    row_pieces,
    with_columns,
)
from pointseg.scene import Scene

PACKED = ("rgb", "rgba")
"""Fields that hold a colour in one value of four bytes, 0xAARRGGBB, whatever their type is called."""
MAX_RATIO = 88
"""LZF streams do not grow more than this: a copy of 264 bytes takes 3."""


def read_pcd(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of a PCD file; organised clouds row by row."""
    header = read_header(path)
    return _columns(header, _read_rows(header))


def pcd_pieces(path: Path) -> Pieces:
    """A binary PCD file in pieces.

    Raises:
        CloudFileError: it is malformed, or of another form.
    """
    header = read_header(path)
    if header.form != "binary":
        not_in_pieces(path)

    def read(size: int) -> Iterator[dict[str, NDArray[Any]]]:
        with open(path, "rb") as stream:
            for rows in _row_pieces(header, stream, size):
                yield _columns(header, rows)

    return Pieces(header.points, header.dtype.itemsize, read)


def _columns(header: Header, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    for key, field in zip(header.keys, header.fields, strict=True):
        values = np.ascontiguousarray(rows[key])
        if _is_packed(field):
            packed = values.view("u4")
            channels = [(packed >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)]
            columns.update(zip(("red", "green", "blue"), channels, strict=True))
        elif field.name != PADDING:
            columns[field.name] = values
    return columns


def write_pcd(path: Path, scene: Scene) -> None:
    """A scene as a binary PCD file; positions are doubles if it has an origin."""
    columns = {key.replace(" ", "_"): storable(v) for key, v in columns_of(scene).items()}
    if "color" in scene:
        red, green, blue = (columns.pop(key).astype("u4") for key in ("red", "green", "blue"))
        columns["rgb"] = red << 16 | green << 8 | blue
    lines = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        f"FIELDS {' '.join(columns)}",
        f"SIZE {' '.join(str(v.dtype.itemsize) for v in columns.values())}",
        f"TYPE {' '.join(v.dtype.kind.upper() for v in columns.values())}",
        f"COUNT {' '.join('1' for _ in columns)}",
        f"WIDTH {len(scene)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(scene)}",
        "DATA binary",
        "",
    ]
    with new_file(path) as part:
        part.write_bytes("\n".join(lines).encode() + as_rows(columns).tobytes())


def check_pcd(source: Path, labels: Labels) -> None:
    """Refuse a file whose field of classes, or another that labels would replace, has several values per point.

    Raises:
        CloudFileError: such a file.
    """
    _new_fields(read_header(source), labels)


def _new_fields(header: Header, labels: Labels) -> list[str]:
    """The names of the classes, and of what else labels add."""
    names = [labels.field_in(header.path, header.keys), *labels.added_names(header.keys)]
    if several := [f.name for f in header.fields if f.name in names and f.count > 1]:
        raise CloudFileError(
            header.path, f"field '{several[0]}' has several values per point, not one"
        )
    return names


def label_pcd(source: Path, target: Path, labels: Labels) -> None:
    """Copy a PCD file with a class for each point; its form, viewpoint and all else stay as they are."""
    header = read_header(source)
    labels = labels.checked(source, header.points)
    kinds = ("i4", *labels.added.values())
    added = [Field(*each) for each in zip(_new_fields(header, labels), kinds, strict=True)]
    if labels.colors is not None:
        added.append(next((f for f in header.fields if _is_packed(f)), Field("rgb", "u4")))
    new = extended(header, added)
    with new_file(target) as part, open(source, "rb") as old, open(part, "wb") as stream:
        stream.write(b"".join(new.lines))
        if header.form == "binary_compressed":
            values = _added_values(added, labels, 0, labels.whole)
            stream.write(_compressed(source, with_columns(_read_rows(header), new.dtype, values)))
            return
        old.seek(header.size)
        starts = np.cumsum([0, *(f.count for f in header.fields)]).tolist()
        places = dict(zip(header.keys, starts, strict=False))
        rows = _row_pieces(header, old, PIECE) if header.form == "binary" else iter(())
        for first, segment in labels.pieces():
            values = _added_values(added, labels, first, segment)
            if header.form == "binary":
                stream.write(with_columns(next(rows), new.dtype, values).tobytes())
            elif header.points:
                copy_rows(old, stream, places, values)


def _added_values(
    added: Sequence[Field], labels: Labels, first: int, segment: NDArray[np.int32]
) -> dict[str, NDArray[Any]]:
    """The classes of points from ``first`` on, and what else labels have; colours packed as their field wants them."""
    columns: list[NDArray[Any]] = [segment, *labels.added_values(first, first + len(segment))]
    values: dict[str, NDArray[Any]] = {
        field.name: column for field, column in zip(added, columns, strict=False)
    }
    for color in added[len(columns) :]:
        red, green, blue = labels.paint(segment).astype("u4").T
        opaque = np.uint32(0xFF000000 if color.name == "rgba" and color.kind != "f4" else 0)
        packed = red << np.uint32(16) | green << np.uint32(8) | blue | opaque
        values[color.name] = packed.view(color.kind)
    return values


def _row_pieces(header: Header, stream: BufferedReader, size: int) -> Iterator[NDArray[Any]]:
    stream.seek(header.size)
    return row_pieces(header.path, stream, header.points, header.dtype, size, what="point")


def _is_packed(field: Field) -> bool:
    return field.name in PACKED and field.count == 1 and field.kind in ("f4", "u4", "i4")


def _read_rows(header: Header) -> NDArray[Any]:
    """(N,) structured."""
    with open(header.path, "rb") as stream:
        stream.seek(header.size)
        given = (header.path, stream, header.points, header.dtype)
        if header.form == "ascii":
            packed = [f.name for f in header.fields if _is_packed(f)]
            return parse_rows(*given, what="point", either_sign=packed)
        if header.form == "binary":
            return read_rows(*given, what="point")
        require_bytes(header.path, stream, 8, "the sizes of compressed data")
        packed_size, size = struct.unpack("<II", stream.read(8))
        require_bytes(header.path, stream, packed_size, "the compressed data")
        return _decompressed(header, stream.read(packed_size), size)


def _decompressed(header: Header, stream: bytes, size: int) -> NDArray[Any]:
    """Rows from compressed data, in which the values of each field follow those of the one before."""
    rows = np.empty(0, header.dtype)
    needed = header.points * rows.dtype.itemsize
    if size != needed or size > len(stream) * MAX_RATIO:
        raise CloudFileError(
            header.path,
            f"{header.points} points take {needed} bytes, its compressed data announce {size} in {len(stream)}",
        )
    if not needed:
        return rows
    try:
        data = lzf.decompress(stream, size)
    except ValueError:
        data = None
    if data is None or len(data) != size:
        raise CloudFileError(
            header.path, "its compressed data are damaged; copy or export it again"
        )
    rows, at = np.empty(header.points, header.dtype), 0
    for name in header.dtype.names or ():
        values = rows[name]
        values[...] = np.frombuffer(data, values.dtype, values.size, at).reshape(values.shape)
        at += values.nbytes
    return rows


def _compressed(path: Path, rows: NDArray[Any]) -> bytes:
    data = b"".join(rows[name].tobytes() for name in rows.dtype.names or ())
    if len(data) >= 2**32:
        raise CloudFileError(path, "is too large for compression, which ends at 4 GiB")
    # literals alone take a byte more for 32 bytes
    packed = lzf.compress(data, len(data) + len(data) // 16 + 64) if data else b""
    return struct.pack("<II", len(packed), len(data)) + packed
