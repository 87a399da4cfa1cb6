"""Compressed data of PCD files, in which the values of each field follow those of the one before."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import lzf
import numpy as np
from numpy.typing import NDArray

from pointseg.files.pcd.header import Header
from pointseg.files.table.errors import CloudFileError

MAX_RATIO = 88
"""LZF streams do not grow more than this: a copy of 264 bytes takes 3."""


def decompressed(header: Header, stream: bytes, size: int) -> NDArray[Any]:
    """(N,) structured rows from a compressed stream that announces ``size`` bytes.

    Raises:
        CloudFileError: it is damaged, or announces another number of bytes than the points take.
    """
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


def compressed(path: Path, rows: NDArray[Any]) -> bytes:
    """The sizes of compressed data and the data, of (N,) structured rows.

    Raises:
        CloudFileError: more data than the format holds; ``path`` is for the message.
    """
    data = b"".join(rows[name].tobytes() for name in rows.dtype.names or ())
    if len(data) >= 2**32:
        raise CloudFileError(path, "is too large for compression, which ends at 4 GiB")
    # literals alone take a byte more for 32 bytes
    packed = lzf.compress(data, len(data) + len(data) // 16 + 64) if data else b""
    return struct.pack("<II", len(packed), len(data)) + packed
