"""Numbers of each point in a file, of which slices are read: those of clouds that do not fit into memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class SavedRows:
    """(N, ...) numbers in a file."""

    def __init__(self, path: Path, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """Name the file.

        Args:
            path: nothing but numbers, those of one point after those of the other.
            kind: their type.
            shape: number of points, then of the numbers of each.
        """
        self._path, self._kind, self.shape = path, kind, shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        width = math.prod(self.shape[1:])
        numbers, at = max(0, stop - start) * width, start * width * self._kind.itemsize
        found = np.fromfile(self._path, self._kind, numbers, offset=at)
        return found.astype(self._kind.newbyteorder("=")).reshape(-1, *self.shape[1:])
