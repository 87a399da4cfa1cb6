"""The ground plane, cut into buckets of about as many points each, between columns of voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Partition:
    """The ground plane, halved again and again between columns of voxels."""

    def __init__(self, sample: NDArray[np.int64], points: int, limit: int) -> None:
        """Cut where a sample says.

        Args:
            sample: (n, 2) columns of voxels of some points, n >= 1.
            points: that the sample stands for.
            limit: of the points of a bucket, about.
        """
        self._cuts: list[tuple[int, int, int, int]] = []  # axis, first column beyond, two children
        self.count = 0
        self._most = max(1, int(len(sample) * limit / points))
        self._root = self._grow(sample)

    def _grow(self, sample: NDArray[np.int64]) -> int:
        """Number of a cut, or -1 less the number of a bucket."""
        sides = np.ptp(sample, axis=0) if len(sample) > self._most else np.zeros(2, np.int64)
        axis = int(sides[1] > sides[0])
        if sides[axis] == 0:
            self.count += 1
            return -self.count
        values = sample[:, axis]
        cut = int(np.median(values))
        if cut <= values.min():
            cut = int(values[values > values.min()].min())
        number = len(self._cuts)
        self._cuts.append((axis, cut, 0, 0))
        below = values < cut
        self._cuts[number] = (axis, cut, self._grow(sample[below]), self._grow(sample[~below]))
        return number

    def find(self, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) the bucket of each of (n, 2) columns of voxels."""
        found = np.empty(len(columns), np.int64)
        pending = [(self._root, np.arange(len(columns)))]
        while pending:
            number, index = pending.pop()
            if number < 0:
                found[index] = -1 - number
            elif len(index):
                axis, cut, first, second = self._cuts[number]
                below = columns[index, axis] < cut
                pending += [(first, index[below]), (second, index[~below])]
        return found


def columns_of_voxels(coord: NDArray[np.floating[Any]], voxel_m: float) -> NDArray[np.int64]:
    """(n, 2) the columns of voxels that (n, 2 or more) positions are in."""
    cells = np.floor(coord[:, :2].astype(np.float64) / voxel_m)
    return np.clip(cells, -(2.0**62), 2.0**62).astype(np.int64)
