"""Heights above the ground of a cloud that goes through the disk, in a file next to its unfinished result."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointseg.files.labelling.saved_rows import SavedRows
from pointseg.prediction.results.heights import DIGITS

FILE, KIND = "heights", np.dtype("<f4")
AT_ONCE = 1 << 22
"""Bytes of which a checksum is made at once."""


class HeightFile:
    """The heights of all points of a file, NaN where nothing was put."""

    def __init__(self, folder: Path, count: int) -> None:
        """Name the file of ``count`` points in a folder."""
        self._path, self._count = folder / FILE, count

    def begin(self) -> None:
        """Make the file anew."""
        with open(self._path, "wb") as stream:
            for start in range(0, self._count, AT_ONCE):
                count = min(AT_ONCE, self._count - start)
                stream.write(np.full(count, np.nan, KIND).tobytes())

    def put(self, places: NDArray[np.int64], heights: NDArray[np.float32]) -> None:
        """Write the (n, 1) heights of points at (n,) ascending places, n >= 1."""
        first, last = int(places[0]), int(places[-1]) + 1
        values = self.rows[first:last]
        values[places - first] = heights[:, 0].round(DIGITS)
        with open(self._path, "r+b") as stream:
            stream.seek(first * KIND.itemsize)
            stream.write(values.astype(KIND).tobytes())

    @property
    def rows(self) -> SavedRows:
        """(N,) the heights."""
        return SavedRows(self._path, KIND, (self._count,))

    def digest(self) -> str:
        """Identifies the content."""
        found = hashlib.sha256()
        with open(self._path, "rb") as stream:
            while part := stream.read(AT_ONCE):
                found.update(part)
        return found.hexdigest()
