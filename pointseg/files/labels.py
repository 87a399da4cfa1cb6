"""What a labelled copy of a cloud's file gets: a class for each point, and perhaps its colour."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.columns import CLASS_FIELD, POSITION, POSITION_ARRAYS, SPARE_CLASS_FIELD, key_of
from pointseg.files.errors import CloudFileError

UNLABELLED_COLOR = (128, 128, 128)


@dataclass(frozen=True)
class Labels:
    """The classes that are written into a copy of a file."""

    segment: NDArray[Any]
    """(N,) integers: the class of each point, -1 where it has none."""
    colors: NDArray[np.uint8] | None = None
    """(K, 3) colours of the classes, which replace those of the points; None: colours stay."""
    field: str | None = None
    """The name of the field that holds the classes; None: see ``field_in``."""
    codes: tuple[int, ...] | None = None
    """The number of each of the K classes in ``classification`` of LAS; None: that stays as it is."""

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
        return replace(self, segment=self.segment.astype(np.int32))

    def field_in(self, path: Path, existing: Iterable[str]) -> str:
        """The name of the field for the classes, given the names of the fields that the file has.

        ``class``, unless the file has a field of that name (which is kept): then ``pointseg_class``.
        A ``pointseg_class`` is of an earlier prediction and is replaced, for readers prefer it.

        Raises:
            CloudFileError: ``field`` is not a name that every type of file can hold, or is that of the
                positions.
        """
        if self.field is None:
            by_key = {key_of(name): name for name in existing}
            spare = by_key.get(SPARE_CLASS_FIELD, SPARE_CLASS_FIELD)
            return spare if by_key.keys() & {CLASS_FIELD, SPARE_CLASS_FIELD} else CLASS_FIELD
        if not re.fullmatch(r"[A-Za-z_]\w{0,30}", self.field, re.ASCII):
            raise CloudFileError(
                path,
                f"the class field must be a name of up to 31 letters, digits and _, got {self.field!r}",
            )
        if key_of(self.field) in {*POSITION[0], *POSITION_ARRAYS}:
            raise CloudFileError(path, f"the class field cannot be '{self.field}', the positions")
        return self.field

    @property
    def kind(self) -> str:
        """Numpy's code of the smaller of the types u1 and i4 that holds the classes."""
        fits = len(self.segment) == 0 or (self.segment.min() >= 0 and self.segment.max() <= 255)
        return "u1" if fits else "i4"

    def paint(self) -> NDArray[np.uint8]:
        """(N, 3) the colour of each point's class; grey where it has none. Needs ``colors``."""
        assert self.colors is not None
        table = np.concatenate([self.colors, np.array([UNLABELLED_COLOR], np.uint8)])
        known = (self.segment >= 0) & (self.segment < len(self.colors))
        return table[np.where(known, self.segment, len(self.colors))]
