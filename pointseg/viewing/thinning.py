"""A stated number of points of a file of any size: it is read in pieces, of which few points are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files import CloudFileError, in_pieces, read_columns
from pointseg.files.columns import fields_in
from pointseg.files.pieces import PIECE

Columns = Mapping[str, NDArray[Any]]
SPARE = 4
"""So many times the wanted points are kept while a file is read, from which the final voxels are chosen."""
HALVINGS = 12
"""Steps in which the size of the final voxels is found."""
FINER = 16
"""So much smaller are the first voxels: points may lie much denser in some places."""
COARSER = 2.0
"""By so much voxels grow when too many are occupied."""


@dataclass(frozen=True)
class Thinned:
    """Some points of a file, in its order."""

    columns: dict[str, NDArray[Any]]
    """(n,) or (n, k) by name, as ``read_columns`` gives them."""
    rows: NDArray[np.int64]
    """(n,) where the file has these points."""
    count: int
    """Points of the file."""


def thin_randomly(path: Path, most: int, columns: Sequence[str] | None = None) -> Thinned:
    """At most so many points, each from another run of as many consecutive points of the file, always the same ones.

    Args:
        path: the file.
        most: points to keep.
        columns: names of its columns, as for ``read_columns``.

    Raises:
        CloudFileError: as ``read_columns``.
    """
    count, parts = _parts(path, columns)
    rows = spread_rows(count, most)
    return Thinned(_picked(parts, rows), rows, count)


def thin_by_voxels(path: Path, most: int, columns: Sequence[str] | None = None) -> Thinned:
    """The first point of each voxel, with voxels of a size that leaves at most so many; points are evenly dense then.

    Args:
        path: the file.
        most: points to keep.
        columns: names of its columns, as for ``read_columns``.

    Raises:
        CloudFileError: as ``read_columns``.
    """
    count, parts = _parts(path, columns)
    if count <= most:
        rows = np.arange(count)
        return Thinned(_picked(parts, rows), rows, count)
    kept = _Voxels(path, SPARE * most)
    for start, part in parts:
        kept.add(start, part)
    held, rows = kept.chosen(most)
    return Thinned(held, rows, count)


THINNING: Mapping[str, Callable[..., Thinned]] = {"random": thin_randomly, "voxel": thin_by_voxels}
"""The ways of thinning by name."""


def columns_at(
    path: Path, rows: NDArray[np.int64], columns: Sequence[str] | None = None
) -> Thinned:
    """Some rows of a file, in ascending order; those beyond its end are left out.

    Args:
        path: the file.
        rows: which, ascending.
        columns: names of its columns, as for ``read_columns``.

    Raises:
        CloudFileError: as ``read_columns``.
    """
    count, parts = _parts(path, columns)
    held = rows[rows < count]
    return Thinned(_picked(parts, held), held, count)


def spread_rows(count: int, most: int) -> NDArray[np.int64]:
    """(min(count, most),) ascending rows: of ``most`` equal runs of the ``count`` rows, one at random of each."""
    if count <= most:
        return np.arange(count, dtype=np.int64)
    edges = np.arange(most + 1, dtype=np.int64) * count // most
    lengths = np.diff(edges)
    return edges[:-1] + (np.random.default_rng(0).random(most) * lengths).astype(np.int64)


def _parts(path: Path, columns: Sequence[str] | None) -> tuple[int, Iterable[tuple[int, Columns]]]:
    """The points of a file, and its columns in pieces, each with its first row."""
    try:
        pieces = in_pieces(path, columns)
    except CloudFileError:  # of a type that is read as a whole; what else is wrong is said again
        whole = read_columns(path, columns)
        return _length(whole), [(0, whole)]
    return pieces.count, _numbered(pieces.read(PIECE))


def _numbered(parts: Iterator[Columns]) -> Iterator[tuple[int, Columns]]:
    start = 0
    for part in parts:
        yield start, part
        start += _length(part)


def _picked(
    parts: Iterable[tuple[int, Columns]], rows: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """The columns at ascending rows."""
    found: list[dict[str, NDArray[Any]]] = []
    for start, part in parts:
        first, last = np.searchsorted(rows, [start, start + _length(part)])
        if last > first or not found:
            found.append(_at(part, rows[first:last] - start))
    return _joined(found)


class _Voxels:
    """The first point of each occupied voxel, of voxels that grow as long as more than a limit are occupied."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path, self._limit = path, limit
        self._origin = np.zeros(3)
        self._size = 0.0
        self._xyz = np.empty((0, 3))
        self._rows = np.empty(0, np.int64)
        self._columns: dict[str, NDArray[Any]] = {}

    def add(self, start: int, part: Columns) -> None:
        """Take in a piece whose first row is ``start``."""
        xyz = fields_in(self._path, part).xyz.astype(np.float64)
        with np.errstate(over="ignore"):
            held = np.flatnonzero(np.isfinite(xyz.astype(np.float32)).all(1))
        if not len(self._rows) and len(held):
            self._origin = xyz[held[0]]
        if self._size:  # most points lie in voxels that are occupied: those need no further look
            held = np.sort(held[self._first(xyz[held], self._size)])
        more = _at(part, held)
        self._columns = _joined([self._columns, more]) if self._columns else more
        self._rows = np.concatenate([self._rows, start + held])
        self._xyz = np.concatenate([self._xyz, xyz[held]])
        while len(self._rows) > self._limit:
            if self._size:
                self._keep(self._first(self._xyz, self._size))
            if len(self._rows) > self._limit:
                self._size = self._size * COARSER or self._fine()

    def chosen(self, most: int) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        """Columns and rows of at most so many points, nearly as many as possible."""
        low, high = self._size, self._size or self._fine()
        while len(found := self._first(self._xyz, high)) > most:
            low, high = high, high * 2
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fewer = self._first(self._xyz, middle) if middle else found
            if len(fewer) <= most:
                high, found = middle, fewer
            else:
                low = middle
        self._keep(found)
        return self._columns, self._rows

    def _fine(self) -> float:
        """Much smaller voxels than those that the points so far would fill one each, spread over a plane."""
        extent = np.ptp(self._xyz, axis=0).max(initial=0) if len(self._xyz) else 0.0
        return float(extent / max(1, len(self._xyz)) ** 0.5) / FINER or 1e-6

    def _first(self, xyz: NDArray[np.float64], size: float) -> NDArray[np.int64]:
        """Ascending indices of the first point in each voxel."""
        if not len(xyz):
            return np.empty(0, np.int64)
        cells = np.floor((xyz - self._origin) / size).astype(np.int64)
        cells -= cells.min(0)
        spans = [int(side) + 1 for side in cells.max(0)]
        if spans[0] * spans[1] * spans[2] < 2**62:
            keys = (cells[:, 0] * spans[1] + cells[:, 1]) * spans[2] + cells[:, 2]
            return np.sort(np.unique(keys, return_index=True)[1])
        return np.sort(np.unique(cells, axis=0, return_index=True)[1])

    def _keep(self, index: NDArray[np.int64]) -> None:
        self._rows, self._xyz = self._rows[index], self._xyz[index]
        self._columns = _at(self._columns, index)


def _length(columns: Columns) -> int:
    return len(next(iter(columns.values()))) if columns else 0


def _at(columns: Columns, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    return {name: values[rows] for name, values in columns.items()}


def _joined(parts: Sequence[Columns]) -> dict[str, NDArray[Any]]:
    if len(parts) == 1:
        return dict(parts[0])
    return (
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    )
