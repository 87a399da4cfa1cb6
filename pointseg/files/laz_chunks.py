"""The table of chunks at the end of a LAZ file, whose length is checked before memory is taken for it.

Source: LASzip's specification of its chunk table, version 0.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

from pointseg.files.errors import CloudFileError

AT_THE_END = -1
"""In place of the table's offset: the offset is in the last 8 bytes of the file."""


def check_chunk_table(path: Path, stream: IO[bytes], points_at: int) -> None:
    """Refuse a table that lists more chunks than the file has bytes: as many would be allocated, and the process ended.

    Args:
        path: the file, for messages.
        stream: the file, compressed.
        points_at: where its points begin, with the offset of the table.

    Raises:
        CloudFileError: such a table, or none.
    """
    size = stream.seek(0, 2)
    at = _number(stream, points_at)
    if at == AT_THE_END:
        at = _number(stream, size - 8)
    if at is None or not points_at + 8 <= at <= size - 8:
        raise CloudFileError(
            path, "is cut off or damaged: it has no table of chunks; copy or export it again"
        )
    stream.seek(at + 4)
    (chunks,) = struct.unpack("<I", stream.read(4))
    if chunks > at - points_at:
        raise CloudFileError(
            path,
            f"is damaged: its points take {at - points_at} bytes, in {chunks} chunks; copy or export it again",
        )


def _number(stream: IO[bytes], at: int) -> int | None:
    """The whole number of 8 bytes there; None behind the end."""
    stream.seek(max(at, 0))
    content = stream.read(8)
    return int.from_bytes(content, "little", signed=True) if len(content) == 8 else None
