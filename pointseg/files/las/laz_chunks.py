"""Chunks of compressed points in LAZ files: numbers that say how much memory they take are checked before.

Source: LASzip's format of chunks, layers (point formats 6 to 10) and of their table, as in versions 2 to 3.4.
"""

from __future__ import annotations

import struct
from math import inf
from pathlib import Path
from typing import IO

from pointseg.files.table.errors import CloudFileError

AT_THE_END = -1
"""In place of the table's offset: the offset is in the last 8 bytes of the file."""
IN_CHUNKS = 2
"""The compressor whose chunks hold as many points each, but for the last."""
VARIABLE = 2**32 - 1
"""Stands for chunks of different numbers of points."""
LAYERED = 3
"""The compressor whose chunks begin with the sizes of their layers."""
LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}
"""Layers of the parts of a point: the point itself, colour, colour and infrared, waveform."""
BYTES = 14
"""The part of a point whose bytes are a layer each: extra dimensions."""
AGAIN = "copy or export it again"


def check_chunks(
    path: Path, stream: IO[bytes], points_at: int, row_bytes: int, count: int, packing: bytes
) -> None:
    """Refuse chunks that are larger, or more, than the file has bytes for: that memory would be taken.

    The library that reads them ends the process where there is not so much, and all other clouds with it.

    Args:
        path: the file, for messages.
        stream: the file, compressed.
        points_at: where its points begin, with the offset of the table of chunks.
        row_bytes: of a point that is not compressed, by the header.
        count: points by the header.
        packing: content of the record that says how points are compressed.

    Raises:
        CloudFileError: such chunks, no table of them, points of another size, or another number of them.
    """
    size = stream.seek(0, 2)
    at = _number(stream, points_at)
    if at == AT_THE_END:
        at = _number(stream, size - 8)
    if at is None or not points_at + 8 <= at <= size - 8:
        raise CloudFileError(path, f"is cut off or damaged: it has no table of chunks; {AGAIN}")
    stream.seek(at + 4)
    (chunks,) = struct.unpack("<I", stream.read(4))
    if chunks > at - points_at:
        raise CloudFileError(
            path,
            f"is damaged: its points take {at - points_at} bytes, in {chunks} chunks; {AGAIN}",
        )
    row, layers = _layers(packing)
    if layers and row != row_bytes:
        raise CloudFileError(
            path,
            f"is damaged: a point takes {row_bytes} bytes by its header, {row} compressed; {AGAIN}",
        )
    start, total = points_at + 8, 0
    for chunk in range(chunks if layers else 0):
        stream.seek(start + row)  # behind the first point
        total += int.from_bytes(stream.read(4), "little")
        sizes = stream.read(4 * layers)
        if len(sizes) == 4 * layers:
            start += row + 4 + len(sizes) + sum(struct.unpack(f"<{layers}I", sizes))
        if start > at or len(sizes) < 4 * layers:
            raise CloudFileError(
                path, f"is damaged: chunk {chunk + 1} of {chunks} is larger than the file; {AGAIN}"
            )

    low, high = (total, total) if layers else _held(packing, chunks)
    if not low <= count <= high:
        holds = str(total) if layers else f"{low} to {high}"
        raise CloudFileError(
            path,
            f"is damaged: its header announces {count} points, its chunks hold {holds}; {AGAIN}",
        )


def _held(packing: bytes, chunks: int) -> tuple[float, float]:
    """The smallest and the largest number of points in chunks that do not say theirs."""
    compressor = struct.unpack_from("<H", packing)[0] if len(packing) >= 16 else 0
    size = struct.unpack_from("<I", packing, 12)[0] if len(packing) >= 16 else VARIABLE
    if compressor != IN_CHUNKS or size == VARIABLE or not chunks:
        return 0, inf
    return (chunks - 1) * size, chunks * size


def _layers(packing: bytes) -> tuple[int, int]:
    """Bytes of a point, and layers of a chunk; no layers where chunks have none."""
    if len(packing) < 34 or struct.unpack_from("<H", packing)[0] != LAYERED:
        return 0, 0
    (parts,) = struct.unpack_from("<H", packing, 32)
    known = [struct.unpack_from("<2H", packing, at) for at in range(34, len(packing) - 5, 6)]
    row = sum(size for _, size in known[:parts])
    return row, sum(size if kind == BYTES else LAYERS.get(kind, 0) for kind, size in known[:parts])


def _number(stream: IO[bytes], at: int) -> int | None:
    """The whole number of 8 bytes there; None behind the end."""
    stream.seek(max(at, 0))
    content = stream.read(8)
    return int.from_bytes(content, "little", signed=True) if len(content) == 8 else None
