"""PCD files of the Point Cloud Library: text, binary and compressed; organised clouds row by row."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.pcd.compression import decompressed
from pointseg.files.pcd.header import PADDING, Header, read_header
from pointseg.files.table.pieces import Pieces, not_in_pieces
from pointseg.files.table.rows import read_rows, require_bytes, row_pieces
from pointseg.files.table.text_rows import parse_rows


def read_pcd(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of a PCD file; organised clouds row by row."""
    header = read_header(path)
    return _columns(header, read_file_rows(header))


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
            for rows in file_row_pieces(header, stream, size):
                yield _columns(header, rows)

    return Pieces(header.points, header.dtype.itemsize, read)


def _columns(header: Header, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    for key, field in zip(header.keys, header.fields, strict=True):
        values = np.ascontiguousarray(rows[key])
        if field.is_packed:
            packed = values.view("u4")
            channels = [(packed >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)]
            columns.update(zip(("red", "green", "blue"), channels, strict=True))
        elif field.name != PADDING:
            columns[field.name] = values
    return columns


def file_row_pieces(header: Header, stream: BufferedReader, size: int) -> Iterator[NDArray[Any]]:
    """The structured rows of a binary file in pieces of ``size``."""
    stream.seek(header.size)
    return row_pieces(header.path, stream, header.points, header.dtype, size, what="point")


def read_file_rows(header: Header) -> NDArray[Any]:
    """(N,) the structured rows of a file of any form."""
    with open(header.path, "rb") as stream:
        stream.seek(header.size)
        given = (header.path, stream, header.points, header.dtype)
        if header.form == "ascii":
            packed = [f.name for f in header.fields if f.is_packed]
            return parse_rows(*given, what="point", either_sign=packed)
        if header.form == "binary":
            return read_rows(*given, what="point")
        require_bytes(header.path, stream, 8, "the sizes of compressed data")
        packed_size, size = struct.unpack("<II", stream.read(8))
        require_bytes(header.path, stream, packed_size, "the compressed data")
        return decompressed(header, stream.read(packed_size), size)
