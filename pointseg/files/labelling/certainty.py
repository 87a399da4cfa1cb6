"""How sure a network is of the class of each point, as copies of files hold it: three numbers from 0 to 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pointseg.files.labelling.saved_rows import SavedRows

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


class SavedCertainty(SavedRows):
    """(N, 3) whole numbers in a file."""

    dtype = np.dtype("<u2")
    """Of the file, and of what slices give."""

    def __init__(self, path: Path, count: int) -> None:
        """Name the file of ``count`` points."""
        super().__init__(path, self.dtype, (count, len(MEASURES)))


def fractions(certainty: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """The same numbers from 0 to 1."""
    return certainty / STEPS


def is_below(certainty: NDArray[np.integer[Any]], confidence: float) -> NDArray[np.bool_]:
    """(n,) which of (n, 3) have a class, and less confidence, as it is written, than this; 0 is that of no class."""
    found = certainty[:, 0]
    return (found > 0) & (fractions(found) < confidence)
