"""Rows of points as PLY, PCD and npy files hold them in binary, and the headers before them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.pieces import ranges

HEADER_LIMIT = 1_000_000  # bytes


def header_lines(path: Path, last: str) -> list[bytes]:
    """The lines of a header with their ends, up to the one whose first word is ``last``.

    Raises:
        CloudFileError: there is no such line.
    """
    lines: list[bytes] = []
    size = 0
    with open(path, "rb") as stream:
        while not lines or lines[-1].split()[:1] != [last.encode()]:
            lines.append(stream.readline(HEADER_LIMIT))
            size += len(lines[-1])
            if not lines[-1] or size > HEADER_LIMIT:
                raise CloudFileError(
                    path, f"has no header that ends with '{last}'; it is cut off or of another type"
                )
    return lines


def as_rows(columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """(N,) structured little-endian rows of (N, ...) columns, at least one."""
    kinds = [(name, v.dtype.newbyteorder("<"), v.shape[1:]) for name, v in columns.items()]
    rows = np.empty(len(next(iter(columns.values()))), kinds)
    for name, values in columns.items():
        rows[name] = values
    return rows


def with_columns(
    rows: NDArray[Any], dtype: np.dtype[Any], values: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    """The rows as ``dtype``, whose columns come from ``values`` or, if not there, from ``rows``."""
    new = np.empty(len(rows), dtype)
    for name in dtype.names or ():
        new[name] = values[name] if name in values else rows[name]
    return new


def read_rows(
    path: Path, stream: BufferedReader, count: int, dtype: np.dtype[Any], *, what: str
) -> NDArray[Any]:
    """Read ``count`` binary rows; ``path`` and ``what`` (a row is of) are for messages.

    Raises:
        CloudFileError: the file is too short. No memory is allocated in that case.
    """
    require_bytes(path, stream, count * dtype.itemsize, f"{count} rows of '{what}'")
    return np.fromfile(stream, dtype, count)


def row_pieces(
    path: Path,
    stream: BufferedReader,
    count: int,
    dtype: np.dtype[Any],
    size: int,
    *,
    what: str,
) -> Iterator[NDArray[Any]]:
    """As ``read_rows``, in pieces of ``size`` rows; of no rows there is one piece.

    Raises:
        CloudFileError: the file is too short.
    """
    require_bytes(path, stream, count * dtype.itemsize, f"{count} rows of '{what}'")
    for start, stop in ranges(count, size):
        yield np.fromfile(stream, dtype, stop - start)


def require_bytes(path: Path, stream: BufferedReader, needed: int, what: str) -> None:
    """Refuse a file that is too short, before memory for its data is allocated.

    Raises:
        CloudFileError: fewer than ``needed`` bytes are left.
    """
    left = path.stat().st_size - stream.tell()
    if needed > left:
        raise CloudFileError(
            path,
            f"is cut off: {what} take at least {needed} bytes, {left} are left; copy or export it again",
        )


def storable(values: NDArray[Any]) -> NDArray[Any]:
    """In a type that PLY and PCD share: floats of 4 or 8 bytes, integers of up to 4.

    Larger integers become doubles where 4 bytes do not hold them.
    """
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "f":
        return values if values.dtype.itemsize in (4, 8) else values.astype(np.float32)
    if values.dtype.itemsize < 8:
        return values
    fits = len(values) == 0 or (values.min() >= -(2**31) and values.max() < 2**31)
    return values.astype(np.int32 if fits else np.float64)
