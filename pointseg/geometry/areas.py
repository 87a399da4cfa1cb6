"""Areas of a cloud that lie apart, seen from above: each has ground of its own, whatever lies far away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointseg.geometry.ground_surface import WINDOW_M

BLOCK_M = 2 * WINDOW_M
"""Side of blocks, metres; those that hold points and touch each other are one area. No window of the filter reaches as
far as from one area to the next."""


@dataclass(frozen=True)
class Areas:
    """The A areas of a cloud."""

    low: NDArray[np.float64]
    """(A, 2) minimum of x and y of the points of each, metres."""
    high: NDArray[np.float64]
    """(A, 2) maximum."""
    blocks: NDArray[np.complex128]
    """(B,) blocks that hold points, ascending: x is the real part, y the imaginary one, in sides of a block."""
    area: NDArray[np.int64]
    """(B,) the area that each block belongs to."""

    def __len__(self) -> int:
        return len(self.low)

    def of(self, coord: NDArray[np.float32]) -> NDArray[np.int64]:
        """(n,) the area that each of (n, 3) points of the cloud belongs to."""
        if len(self) == 1:
            return np.zeros(len(coord), np.int64)
        block = _blocks(coord)
        starts = _starts(block)
        found = self.area[np.searchsorted(self.blocks, block[starts])]
        return np.repeat(found, np.diff(starts, append=len(block)))


def find_areas(pieces: Iterable[NDArray[np.float32]]) -> Areas:
    """Find the areas of a cloud.

    Args:
        pieces: its points, (n, 3) finite positions with n >= 1 at a time, metres, z up; at least one piece.
    """
    boxes = []
    for coord in pieces:
        xy = coord[:, :2]
        boxes.append(_sorted(*_in_runs(_blocks(coord), xy, xy)))
    blocks, low, high = _sorted(*map(np.concatenate, zip(*boxes, strict=True)))
    area = _connected(blocks)
    count = int(area.max()) + 1
    lowest, highest = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(lowest, area, low)
    np.maximum.at(highest, area, high)
    return Areas(lowest, highest, blocks, area)


def _blocks(coord: NDArray[np.float32]) -> NDArray[np.complex128]:
    """(n,) the block of each point. Floats hold those of the farthest points, too."""
    x, y = np.floor(coord[:, :2].astype(np.float64) / BLOCK_M).T
    return x + 1j * y


def _starts(block: NDArray[np.complex128]) -> NDArray[np.int64]:
    """Where another block begins: points that follow each other in a scan mostly lie in one."""
    return np.flatnonzero(np.append(True, block[1:] != block[:-1]))


def _in_runs(
    block: NDArray[np.complex128], low: NDArray[np.float32], high: NDArray[np.float32]
) -> tuple[NDArray[np.complex128], NDArray[np.float32], NDArray[np.float32]]:
    """The same with one row for each run of rows of one block: what lies within all of them."""
    starts = _starts(block)
    return block[starts], np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)


def _sorted(
    block: NDArray[np.complex128], low: NDArray[np.float32], high: NDArray[np.float32]
) -> tuple[NDArray[np.complex128], NDArray[np.float32], NDArray[np.float32]]:
    """The same with one row for each block, ascending."""
    order = np.argsort(block)
    return _in_runs(block[order], low[order], high[order])


def _connected(blocks: NDArray[np.complex128]) -> NDArray[np.int64]:
    """(B,) a number for each block, the same for blocks that touch, at corners as well."""
    from scipy.sparse import coo_matrix  # slow to import
    from scipy.sparse.csgraph import connected_components

    pairs = []
    for step in (1j, 1 - 1j, 1, 1 + 1j):
        at = np.minimum(np.searchsorted(blocks, blocks + step), len(blocks) - 1)
        one = np.flatnonzero(blocks[at] == blocks + step)
        pairs.append(np.stack([one, at[one]]))
    one, other = np.concatenate(pairs, axis=1)
    touching = coo_matrix((np.ones(len(one)), (one, other)), shape=(len(blocks), len(blocks)))
    return connected_components(touching, directed=False)[1].astype(np.int64)
