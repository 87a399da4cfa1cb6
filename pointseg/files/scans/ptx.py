"""Leica's .ptx: scans of a grid of directions as text, one after the other, each with its pose.

Ten lines begin a scan: the number of columns and of rows, the scanner's position and axes, and a matrix of four lines
that moves points, written as rows, to where all scans are. A line for each direction follows; those without return are
at 0, 0, 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointseg.files.table.errors import CloudFileError, numpy_reason
from pointseg.files.table.noted_columns import NotedColumns

NAMES = ("x", "y", "z", "intensity", "red", "green", "blue")
WIDTHS = (4, 7)
"""Numbers of a line: without and with colours."""
HEADER = (1, 1, 3, 3, 3, 3, 4, 4, 4, 4)
"""Numbers of the lines that begin a scan."""
LEAST = 8
"""Bytes of a line of four numbers, at least."""


@dataclass(frozen=True)
class Scan:
    """One of the scans of a file."""

    points: NDArray[np.float64]
    """(M, 4 or 7) those that returned, in the coordinates of all scans."""
    lost: int
    """Directions without return."""


def read_ptx(path: Path) -> NotedColumns:
    """All scans of a file in their common coordinates; ``scan`` numbers them where there are several.

    Directions without return are left out, and counted in the notes.

    Raises:
        CloudFileError: malformed or cut off; some scans have colours and some have none.
    """
    with open(path, "rb") as stream:
        scans = list(_scans(path, stream))
    if not scans:
        raise CloudFileError(path, "is empty; a scan begins with its numbers of columns and rows")
    if len({scan.points.shape[1] for scan in scans}) > 1:
        raise CloudFileError(
            path, "has scans with colours and without; save each as a file of its own"
        )
    table = np.concatenate([scan.points for scan in scans])
    columns = {
        name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(NAMES[: table.shape[1]])
    }
    if len(scans) > 1:
        sizes = [len(scan.points) for scan in scans]
        columns["scan"] = np.repeat(np.arange(len(scans), dtype=np.int32), sizes)
    lost = sum(scan.lost for scan in scans)
    note = f"{lost} of {lost + len(table)} directions have no return (0, 0, 0); they were left out"
    return NotedColumns(columns, (note,) if lost else ())


def _scans(path: Path, stream: BufferedReader) -> Iterator[Scan]:
    number = 0
    while (head := _header(path, stream, number)) is not None:
        count, matrix = head
        left = path.stat().st_size - stream.tell()
        if count * LEAST > left + 1:  # the last line may have no end
            raise CloudFileError(
                path, f"is cut off: scan {number + 1} has {count} directions, {left} bytes are left"
            )
        table = _table(path, stream, count, number)
        returned = table[:, :3].any(1)
        points = table[returned]
        points[:, :3] = points[:, :3] @ matrix[:3, :3] + matrix[3, :3]
        yield Scan(points, int(count - returned.sum()))
        number += 1


def _header(
    path: Path, stream: BufferedReader, scan: int
) -> tuple[int, NDArray[np.float64]] | None:
    """How many directions a scan has, and its matrix; None at the end of the file."""
    lines = list(
        islice((line for line in stream if line.strip(b"\xef\xbb\xbf \t\r\n\0")), len(HEADER))
    )
    if not lines:
        return None
    try:
        rows = [[float(word) for word in line.strip(b"\xef\xbb\xbf").split()] for line in lines]
        sizes = [int(lines[0].strip(b"\xef\xbb\xbf")), int(lines[1])]
    except (ValueError, IndexError):
        rows, sizes = [], []
    if [len(row) for row in rows] != list(HEADER) or min(sizes) < 0:
        raise CloudFileError(
            path,
            f"the ten lines that begin scan {scan + 1} must hold 1, 1, 3, 3, 3, 3, 4, 4, 4 and 4 numbers; it is cut "
            "off, or no .ptx file",
        )
    matrix = np.array(rows[6:])
    if not np.isfinite(matrix).all() or matrix[:, 3].tolist() != [0, 0, 0, 1]:
        raise CloudFileError(
            path, f"the matrix of scan {scan + 1} must end in 0, 0, 0, 1, one in each line"
        )
    return sizes[0] * sizes[1], matrix


def _table(path: Path, stream: BufferedReader, count: int, scan: int) -> NDArray[np.float64]:
    """(count, 4 or 7) the lines of a scan."""
    if count == 0:
        return np.empty((0, WIDTHS[0]))
    start = stream.tell()
    try:
        table = np.loadtxt(islice(stream, count), comments=None, ndmin=2, encoding="latin-1")
    except ValueError as error:
        stream.seek(start)
        table = _uneven(path, list(islice(stream, count)), scan, error)
    if len(table) < count or table.shape[1] not in WIDTHS:
        raise CloudFileError(
            path,
            f"is cut off or malformed: scan {scan + 1} has {len(table)} of {count} lines, of {table.shape[1]} numbers",
        )
    return table


def _uneven(path: Path, lines: list[bytes], scan: int, error: ValueError) -> NDArray[np.float64]:
    """Lines of which those without return lack the colour."""
    words = [line.split() for line in lines]
    widest = max(map(len, words), default=0)
    try:
        rows = [[float(word) for word in line] + [0.0] * (widest - len(line)) for line in words]
    except ValueError:
        rows = []
    sound = all(
        len(line) == widest or row[:3] == [0, 0, 0] for line, row in zip(words, rows, strict=False)
    )
    if not rows or not sound or min(map(len, words)) < WIDTHS[0]:
        raise CloudFileError(
            path, f"scan {scan + 1} is malformed: {numpy_reason(error)}"
        ) from error
    return np.array(rows)
