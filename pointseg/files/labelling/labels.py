"""What a labelled copy of a cloud's file gets: a class for each point, perhaps its colour, and how sure it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.columns.names import CLASS_FIELD, HEIGHT, POSITION, POSITION_ARRAYS, key_of
from pointseg.files.labelling.certainty import MEASURES, SavedCertainty, fractions
from pointseg.files.labelling.saved_rows import SavedRows
from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.pieces import PIECE, ranges

UNLABELLED_COLOR = (128, 128, 128)
OWN = "pointseg_"
"""Begins names of fields of earlier predictions, which are replaced."""
CLASSIFICATION = "classification"
"""Of LAS files, whose numbers the ASPRS defines; in other types a field like others."""
UNCLASSIFIED = 1
"""The ASPRS code of points without a class; 0 is that of points that nobody looked at."""


class SavedLabels(SavedRows):
    """(N,) classes in a file."""

    dtype = np.dtype(np.int32)
    """Of what slices give, whatever the file's type is."""

    def __init__(self, path: Path, kind: np.dtype[Any], count: int) -> None:
        """Name the file.

        Args:
            path: nothing but numbers, one for each point.
            kind: their type.
            count: how many there are.
        """
        super().__init__(path, kind, (count,))

    def __getitem__(self, rows: slice) -> NDArray[np.int32]:
        return super().__getitem__(rows).astype(np.int32)


@dataclass(frozen=True)
class Labels:
    """The classes that are written into a copy of a file."""

    segment: NDArray[Any] | SavedLabels
    """(N,) integers: the class of each point, -1 where it has none."""
    colors: NDArray[np.uint8] | None = None
    """(K, 3) colours of the classes, which replace those of the points; None: colours stay."""
    field: str | None = None
    """The name of the field that holds the classes; None: see ``field_in``."""
    codes: tuple[int, ...] | None = None
    """The number of each of the K classes in ``classification`` of LAS, or in a field of that name in other types;
    None: there is none, that of LAS stays as it is."""
    certainty: NDArray[np.uint16] | SavedCertainty | None = None
    """(N, 3) ``MEASURES`` in ``STEPS``, which become fields, too; None: they do not."""
    legend: tuple[str, ...] = ()
    """Names of the K classes, for descriptions and records of LAS and for comments of PLY and PCD."""
    heights: NDArray[np.float32] | SavedRows | None = None
    """(N,) metres above the ground, which become a field, too; NaN where there is no position; None: they do not."""
    keeps_former: bool = True
    """Whether what was in ``classification`` of LAS stays, in another field."""

    def checked(self, path: Path, count: int) -> Labels:
        """The same labels as int32.

        Raises:
            CloudFileError: there is not one whole number for each of the file's ``count`` points.
        """
        if self.segment.shape != (count,) or self.segment.dtype.kind not in "iu":
            raise CloudFileError(
                path,
                f"has {count} points, so 'segment' must be ({count},) integers, "
                f"got {self.segment.shape} {self.segment.dtype}",
            )
        if self.certainty is not None and self.certainty.shape != (count, len(MEASURES)):
            raise CloudFileError(path, f"has {count} points, 'certainty' is {self.certainty.shape}")
        if self.heights is not None and self.heights.shape != (count,):
            raise CloudFileError(path, f"has {count} points, 'heights' is {self.heights.shape}")
        if isinstance(self.segment, SavedLabels):
            return self
        return replace(self, segment=self.segment.astype(np.int32))

    def pieces(self, size: int = PIECE) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """The first row and the classes of each piece of ``size`` points; needs ``checked``."""
        for start, stop in ranges(len(self.segment), size):
            yield start, self.segment[start:stop]

    def field_in(self, path: Path, existing: Iterable[str]) -> str:
        """The name of the field for the classes, given the names of the fields that the file has.

        ``class``, unless the file has a field of that name (which is kept): then ``pointseg_class``.
        A ``pointseg_class`` is of an earlier prediction and is replaced, for readers prefer it.

        Raises:
            CloudFileError: ``field`` is not a name that every type of file can hold, or is that of the
                positions.
        """
        if self.field is None:
            return _free_name(CLASS_FIELD, existing)
        if not re.fullmatch(r"[A-Za-z_]\w{0,30}", self.field, re.ASCII):
            raise CloudFileError(
                path,
                f"the class field must be a name of up to 31 letters, digits and _, got {self.field!r}",
            )
        if key_of(self.field) in {*POSITION[0], *POSITION_ARRAYS}:
            raise CloudFileError(path, f"the class field cannot be '{self.field}', the positions")
        return self.field

    @property
    def added(self) -> dict[str, str]:
        """Further fields and numpy's codes of their types: codes of the classes, ``MEASURES``, heights."""
        found = {} if self.codes is None else {CLASSIFICATION: "u1"}
        if self.certainty is not None:
            found |= {measure.name: "f4" for measure in MEASURES}
        return found if self.heights is None else found | {HEIGHT: "f4"}

    def added_names(self, existing: Iterable[str]) -> list[str]:
        """The names of the fields ``added``, chosen as that of the classes."""
        existing = list(existing)
        return [_free_name(name, existing) for name in self.added]

    def added_values(self, start: int = 0, stop: int | None = None) -> list[NDArray[Any]]:
        """(n,) each field ``added``, of some rows: certainty from 0 to 1 in float64. Needs ``checked``."""
        rows = slice(start, stop)
        found: list[NDArray[Any]] = []
        if self.codes is not None:
            found.append(self.coded(self.segment[rows]))
        if self.certainty is not None:
            found += list(fractions(self.certainty[rows]).T)
        if self.heights is not None:
            found.append(self.heights[rows])
        return found

    def coded(self, segment: NDArray[np.int32]) -> NDArray[np.uint8]:
        """(n,) the codes of these classes; ``UNCLASSIFIED`` where there is none. Needs ``codes``."""
        assert self.codes is not None
        table = np.array([*self.codes, UNCLASSIFIED], np.uint8)
        return table[np.where(segment < 0, len(self.codes), segment)]

    @property
    def whole(self) -> NDArray[np.int32]:
        """(N,) all classes, for types that are written as a whole; needs ``checked``."""
        return self.segment[:]

    @cached_property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest class; 0 and 0 where there are no points."""
        found = [(int(p.min()), int(p.max())) for _, p in self.pieces() if len(p)]
        if not found:
            return 0, 0
        return min(low for low, _ in found), max(high for _, high in found)

    @property
    def kind(self) -> str:
        """Numpy's code of the smaller of the types u1 and i4 that holds the classes."""
        low, high = self.limits
        return "u1" if low >= 0 and high <= 255 else "i4"

    def paint(self, segment: NDArray[np.int32]) -> NDArray[np.uint8]:
        """(n, 3) the colours of these classes; grey where there is none. Needs ``colors``."""
        assert self.colors is not None
        table = np.concatenate([self.colors, np.array([UNLABELLED_COLOR], np.uint8)])
        known = (segment >= 0) & (segment < len(self.colors))
        return table[np.where(known, segment, len(self.colors))]


def _free_name(name: str, existing: Iterable[str]) -> str:
    """A name, or if the file has it already, that with ``pointseg_``, under which the file may have an older one."""
    by_key = {key_of(found): found for found in existing}
    spare = OWN + name
    return by_key.get(spare, spare) if by_key.keys() & {name, spare} else name
