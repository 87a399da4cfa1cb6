"""Clouds read a piece at a time, for those that do not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pointseg.files.table.errors import CloudFileError

PIECE = 1_000_000
"""Points that are read, labelled and written at once."""


@dataclass(frozen=True)
class Pieces:
    """A file that can be read in pieces; its header is checked against its size."""

    count: int
    """Points of the file, by its header."""
    row_bytes: int
    """Bytes of a point in memory."""
    read: Callable[[int], Iterator[Mapping[str, NDArray[Any]]]]
    """Given the points of a piece, yields the columns of each piece in the order of the file; (n,) or (n, k) each."""


def ranges(count: int, size: int) -> Iterator[tuple[int, int]]:
    """First row and the one after the last of pieces of at most ``size`` rows; of no rows there is one piece."""
    for start in range(0, max(count, 1), size):
        yield start, min(start + size, count)


def not_in_pieces(path: Path, columns: Sequence[str] | None = None) -> Any:
    """Refuse a file whose type is read as a whole.

    Raises:
        CloudFileError: always.
    """
    raise CloudFileError(
        path,
        "is of a type that is only read as a whole, not in pieces; save it as LAZ, LAS, binary PLY, binary PCD or "
        ".npy, or cut it into several files",
    )
