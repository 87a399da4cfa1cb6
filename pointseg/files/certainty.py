"""How sure a network is of the class of each point, as copies of files hold it: three numbers from 0 to 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

STEPS = 10_000
"""Numbers are kept as whole ones from 0 to this, so that all types of files hold the same four digits."""


class Measure(NamedTuple):
    """One of the numbers."""

    name: str
    """Of its field."""
    description: str
    """At most 32 bytes, as LAS has them."""


MEASURES = (
    Measure("confidence", "probability of the class"),
    Measure("entropy", "0: sure, 1: all classes alike"),
    Measure("margin", "first minus second probability"),
)
"""In the order in which arrays have them."""


class SavedCertainty:
    """(N, 3) whole numbers in a file, of which slices are read: those of clouds that do not fit into memory."""

    dtype = np.dtype("<u2")
    """Of the file, and of what slices give."""

    def __init__(self, path: Path, count: int) -> None:
        """Name the file of ``count`` points."""
        self._path, self.shape = path, (count, len(MEASURES))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[np.uint16]:
        start, stop, _ = rows.indices(len(self))
        size, width = self.dtype.itemsize, self.shape[1]
        numbers = max(0, stop - start) * width
        found = np.fromfile(self._path, self.dtype, numbers, offset=start * width * size)
        return found.astype(np.uint16).reshape(-1, width)


def fractions(certainty: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """The same numbers from 0 to 1."""
    return certainty / STEPS


def is_below(certainty: NDArray[np.integer[Any]], confidence: float) -> NDArray[np.bool_]:
    """(n,) which of (n, 3) have a class, and less confidence, as it is written, than this; 0 is that of no class."""
    found = certainty[:, 0]
    return (found > 0) & (fractions(found) < confidence)
