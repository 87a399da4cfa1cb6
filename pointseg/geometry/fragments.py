"""Fragments of a cloud for tests: samples with one point per voxel, which together hold every point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from pointseg.geometry.voxels import Voxels


class Fragments(Sequence[NDArray[np.int64]]):
    """Samples of a cloud with one point per voxel, which together hold every point.

    Fragment k holds point k mod n of every voxel with n points: (M,) indices, in the order of the
    voxels, computed when indexed. There are as many fragments as the fullest voxel has points, or
    ``limit`` if that is fewer: a voxel with thousands of points (say, the missing returns of a
    scanner, all at the origin) would otherwise need thousands of passes over the whole cloud. Points in
    no fragment take the scores of their ``representative_index``.

    Source: the test protocol of Point Transformer V3, arXiv:2312.10035.
    """

    def __init__(self, voxels: Voxels, *, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"Fragments: 'limit' must be >= 1 fragment, got {limit}")
        self.voxels = voxels
        fullest = int(voxels.counts.max())
        self._count = fullest if limit is None else min(limit, fullest)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> NDArray[np.int64]: ...
    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.int64]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        numbers = range(self._count)[index]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        return self.voxels.order[self.voxels.starts + numbers % self.voxels.counts]

    @property
    def representative_index(self) -> NDArray[np.int64]:
        """(N,) for each point the point of its voxel whose scores it takes, which is in some fragment.

        That is the point itself, except that with L fragments the points after the first L of a voxel
        take those of these L in turn: ``scores[fragments.representative_index]`` has a row for each.
        """
        voxels = self.voxels
        starts = np.repeat(voxels.starts, voxels.counts)
        rank = np.arange(len(voxels.order)) - starts
        index = np.empty_like(voxels.order)
        index[voxels.order] = voxels.order[starts + rank % self._count]
        return index
