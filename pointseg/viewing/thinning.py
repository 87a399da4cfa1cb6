"""A stated number of points of a file of any size: it is read in pieces, of which few points are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files import CloudFileError, in_pieces, read_columns
from pointseg.files.columns.fields import fields_in
from pointseg.files.table.pieces import PIECE

Columns = Mapping[str, NDArray[Any]]
Progress = Callable[[float], None]
"""Receives which part of a file is read, 0 to 1."""
SPARE = 4
"""So many times the wanted points are kept while a file is read, from which the final voxels are chosen."""
HALVINGS = 12
"""At most so many steps in which the size of the final voxels is found."""
NEAR = 0.97
"""With so large a share of the wanted points the size is good enough: each step sorts all points that are kept."""
POWERS = (-40, 88)
"""The size of the first voxels is a power of two, found between these: it does not depend on how far points reach."""
COARSER = 2.0
"""By so much voxels grow when too many are occupied."""
HALF = 1 << 20
"""Cells on each side of the origin that three axes of one number hold."""
EXACT = 1 << 20
"""Of more points, a sixteenth of the voxels is counted, chosen by their keys: of a million voxels to half a percent."""


@dataclass(frozen=True)
class Thinned:
    """Some points of a file, in its order."""

    columns: dict[str, NDArray[Any]]
    """(n,) or (n, k) by name, as ``read_columns`` gives them."""
    rows: NDArray[np.int64]
    """(n,) where the file has these points."""
    count: int
    """Points of the file."""


def _silent(part: float) -> None:
    """Nobody looks."""


def thin_randomly(
    path: Path, most: int, columns: Sequence[str] | None = None, progress: Progress = _silent
) -> Thinned:
    """At most so many points, each from another run of as many consecutive points of the file, always the same ones.

    Args:
        path: the file.
        most: points to keep.
        columns: names of its columns, as for ``read_columns``.
        progress: receives which part of the file is read.

    Raises:
        CloudFileError: as ``read_columns``.
    """
    count, parts = _parts(path, columns, progress)
    rows = spread_rows(count, most)
    return Thinned(_picked(parts, rows), rows, count)


def thin_by_voxels(
    path: Path, most: int, columns: Sequence[str] | None = None, progress: Progress = _silent
) -> Thinned:
    """The first point of each voxel, with voxels of a size that leaves at most so many; points are evenly dense then.

    Args:
        path: the file.
        most: points to keep.
        columns: names of its columns, as for ``read_columns``.
        progress: receives which part of the file is read.

    Raises:
        CloudFileError: as ``read_columns``.
    """
    count, parts = _parts(path, columns, progress)
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
    path: Path,
    rows: NDArray[np.int64],
    columns: Sequence[str] | None = None,
    progress: Progress = _silent,
) -> Thinned:
    """Some rows of a file, in ascending order; those beyond its end are left out.

    Args:
        path: the file.
        rows: which, ascending.
        columns: names of its columns, as for ``read_columns``.
        progress: receives which part of the file is read.

    Raises:
        CloudFileError: as ``read_columns``.
    """
    count, parts = _parts(path, columns, progress)
    held = rows[rows < count]
    return Thinned(_picked(parts, held), held, count)


def spread_rows(count: int, most: int) -> NDArray[np.int64]:
    """(min(count, most),) ascending rows: of ``most`` equal runs of the ``count`` rows, one at random of each."""
    if count <= most:
        return np.arange(count, dtype=np.int64)
    edges = np.arange(most + 1, dtype=np.int64) * count // most
    lengths = np.diff(edges)
    return edges[:-1] + (np.random.default_rng(0).random(most) * lengths).astype(np.int64)


def _parts(
    path: Path, columns: Sequence[str] | None, progress: Progress
) -> tuple[int, Iterable[tuple[int, Columns]]]:
    """The points of a file, and its columns in pieces, each with its first row."""
    try:
        pieces = in_pieces(path, columns)
    except CloudFileError:  # of a type that is read as a whole; what else is wrong is said again
        whole = read_columns(path, columns)
        return _length(whole), [(0, whole)]
    return pieces.count, _numbered(pieces.read(PIECE), pieces.count, progress)


def _numbered(
    parts: Iterator[Columns], count: int, progress: Progress
) -> Iterator[tuple[int, Columns]]:
    start = 0
    for part in parts:
        yield start, part
        start += _length(part)
        progress(start / count)


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
        self._origin: NDArray[np.float64] | None = None
        self._size = 0.0
        self._xyz = np.empty((3, 0))
        self._rows = np.empty(0, np.int64)
        self._columns: dict[str, NDArray[Any]] = {}
        self._more: list[
            tuple[NDArray[np.float64], NDArray[np.int64], dict[str, NDArray[Any]]]
        ] = []

    def add(self, start: int, part: Columns) -> None:
        """Take in a piece whose first row is ``start``."""
        xyz = fields_in(self._path, part).xyz.astype(np.float64)
        with np.errstate(over="ignore"):
            held = np.flatnonzero(np.isfinite(xyz.astype(np.float32)).all(1))
        if self._origin is None and len(held):
            self._origin = np.median(xyz[held], axis=0)  # of points that are not far away
        columns = np.ascontiguousarray(xyz[held].T)
        if self._size:  # most points lie in voxels that are occupied: those need no further look
            first = self._first(columns, self._size)
            held, columns = held[first], columns[:, first]
        self._more.append((columns, start + held, _at(part, held)))
        if len(self._rows) + sum(len(rows) for _, rows, _ in self._more) > self._limit:
            self._join()
            self._grow()

    def _join(self) -> None:
        """Put the pieces since the last time at the end of what is kept: at each piece it would copy all of it."""
        xyz, rows, columns = zip(*self._more, strict=True) if self._more else ((), (), ())
        self._xyz = np.concatenate([self._xyz, *xyz], axis=1)
        self._rows = np.concatenate([self._rows, *rows])
        self._columns = _joined([*([self._columns] if self._columns else []), *columns])
        self._more = []

    def _grow(self) -> None:
        """Make voxels larger until so few are occupied that their first points stay below the limit."""
        self._size = self._size or self._fine(self._limit)
        while self._occupied(self._size) > self._limit:
            self._size *= COARSER
        self._keep(self._first(self._xyz, self._size))

    def chosen(self, most: int) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        """Columns and rows of at most so many points, nearly as many as possible."""
        self._join()
        low, high, more = self._size, self._size or self._fine(most), 0
        while (count := self._occupied(high)) > most:
            low, high, more = high, high * COARSER, count
        for _ in range(HALVINGS):
            if count >= NEAR * most or low == high:  # smaller ones than those kept are not known
                break
            middle = (low + high) / 2
            if more:  # counts fall like a power of the size, of surfaces like the second
                part = np.log(more / (most * (1 + NEAR) / 2)) / np.log(more / count)
                middle = low * (high / low) ** float(np.clip(part, 0.1, 0.9))
            found = self._occupied(middle)
            if found <= most:
                high, count = middle, found
            else:
                low, more = middle, found
        first = self._first(self._xyz, high)
        # counted in a part of the voxels, a few may be too many
        self._keep(first[spread_rows(len(first), most)])
        return self._columns, self._rows

    def _fine(self, most: int) -> float:
        """The largest power of two as a size of which more than so many voxels are occupied."""
        low, high = POWERS
        while high - low > 1:
            middle = (low + high) // 2
            if self._occupied(2.0**middle) > most:
                low = middle
            else:
                high = middle
        return 2.0**low

    def _occupied(self, size: float) -> int:
        """How many voxels of a size the points fill."""
        keys, share = self._keys(self._xyz, size), 1
        if len(keys) > EXACT:
            keys, share = keys[_scattered(keys, 4) == 0], 16
        keys = np.sort(keys)
        return share * (int(np.count_nonzero(np.diff(keys))) + 1) if len(keys) else 0

    def _first(self, xyz: NDArray[np.float64], size: float) -> NDArray[np.int64]:
        """Ascending indices of the first point in each voxel."""
        return first_of_each(self._keys(xyz, size))

    def _keys(self, xyz: NDArray[np.float64], size: float) -> NDArray[np.int64]:
        """(n,) a number for each point, the same for the points of one voxel alone."""
        if not xyz.shape[1] or self._origin is None:
            return np.empty(0, np.int64)
        columns = []
        for values, origin in zip(xyz, self._origin, strict=True):
            column = values - origin
            column /= size
            columns.append(np.floor(column, out=column))
        return _keys_of(columns)

    def _keep(self, index: NDArray[np.int64]) -> None:
        self._rows, self._xyz = self._rows[index], self._xyz[:, index]
        self._columns = _at(self._columns, index)


def first_of_each(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ascending indices of the first of each different number; a table of their hashes is faster than sorting them.

    Args:
        keys: (n,) any numbers.
    """
    found: list[NDArray[np.int64]] = []
    left = np.arange(len(keys))
    while len(left):
        mine = keys[left]
        slot = _scattered(mine, max(1, int(2 * len(left)).bit_length()), salt=len(found))
        owner = np.full(int(slot.max()) + 1, len(left))
        np.minimum.at(owner, slot, np.arange(len(left)))
        owner = owner[slot]
        found.append(left[owner == np.arange(len(left))])
        left = left[mine[owner] != mine]  # another number has their place of the table
    return np.sort(np.concatenate(found)) if found else left


def _scattered(keys: NDArray[np.int64], bits: int, salt: int = 0) -> NDArray[np.int64]:
    """(n,) numbers of so many bits that look random, the same for the same key."""
    mixed = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15 + 2 * salt)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(64 - bits)).astype(np.int64)


def _keys_of(cells: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
    """(n,) a number for each n cells of a grid, of whole numbers along three axes, the same for the same cell alone."""
    lows = [float(values.min()) for values in cells]
    spans = [float(values.max()) - low + 1 for values, low in zip(cells, lows, strict=True)]
    if max(spans) < 2**53 and spans[0] * spans[1] * spans[2] < 2**62:
        x, y, z = ((c - low).astype(np.int64) for c, low in zip(cells, lows, strict=True))
        return (x * int(spans[1]) + y) * int(spans[2]) + z
    near = np.logical_and.reduce([np.abs(values) < HALF for values in cells])
    x, y, z = ((values[near] + HALF).astype(np.int64) for values in cells)
    keys = np.empty(len(near), np.int64)
    keys[near] = (x * 2 * HALF + y) * 2 * HALF + z
    rank = np.zeros(len(near) - len(x), np.int64)
    for values in cells:  # few cells are so far away that they are sorted
        rank = _ranks(rank * len(rank) + _ranks(values[~near]))
    keys[~near] = -1 - rank
    return keys


def _ranks(values: NDArray[Any]) -> NDArray[np.int64]:
    """(n,) numbers from 0 on without gaps, in the order of these values."""
    return np.unique(values, return_inverse=True)[1].reshape(-1)


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
