"""Voxelisation of a cloud, and one point of each voxel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.scene import Scene

MAX_CELLS = 2**16
"""Cells along each axis that a network's grid can have: curve codes take 16 bits of each."""
_MAX_CELLS_DOWNSAMPLED = 2**21  # three of these still make one 63-bit number

AXES = "xyz"


@dataclass(frozen=True)
class Voxels:
    """The M occupied voxels of N points, in the order of x, then y, then z."""

    grid_coord: NDArray[np.int32]
    """(M, 3) cells, >= 0; the smallest along each axis is 0."""
    inverse: NDArray[np.int64]
    """(N,) the voxel that each point is in."""
    counts: NDArray[np.int64]
    """(M,) points in each voxel, >= 1."""
    order: NDArray[np.int64]
    """(N,) the points voxel by voxel; within a voxel as they came."""

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(M,) where each voxel's points begin in ``order``."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """(M,) the first point of each voxel."""
        return self.order[self.starts]

    def random(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """(M,) one point of each voxel, all its points equally likely."""
        return self.order[self.starts + rng.integers(0, self.counts)]


def voxelize(coord: NDArray[np.floating[Any]], size_m: float) -> Voxels:
    """Find the voxels of a cloud: cell = floor(coord / size), shifted so that the smallest is 0.

    Args:
        coord: (N, 3) metres, N >= 1. Divided in float64: positions shifted by whole voxels that
            float32 or float64 can hold lie in the same voxels.
        size_m: edge of a voxel, metres, > 0.

    Raises:
        ValueError: no points, positions that are not finite, a size that is not above 0, or a grid of
            more than 65,536 cells along an axis (positions in millimetres, most often).

    Source: grid sampling of Choy 2019, arXiv:1904.08755, with sorting in place of a hash.
    """
    return _voxelize(coord, size_m, MAX_CELLS)


def voxel_downsample(scene: Scene, size_m: float) -> tuple[Scene, NDArray[np.int64]]:
    """The first point of each voxel of a grid much finer than the network's, to bound its work.

    Args:
        scene: N points.
        size_m: edge of a voxel, metres. Up to 2,097,152 occupied cells along an axis, however far apart.

    Returns:
        M points; (N,) for each point of ``scene`` the row of the point that represents it.

    Raises:
        ValueError: as :func:`voxelize`.
    """
    voxels = _voxelize(scene.coord, size_m, _MAX_CELLS_DOWNSAMPLED, with_gaps=False)
    return scene.select(voxels.first), voxels.inverse


def nearest_to_centre(
    coord: NDArray[np.float32], voxels: Voxels, size_m: float
) -> NDArray[np.int64]:
    """(M,) index of the point of each voxel that is nearest to its centre; the first one of equals.

    Args:
        coord: (N, 3) metres.
        voxels: of these points.
        size_m: edge of a voxel, metres.
    """
    offset = np.zeros(len(coord), np.float32)
    for axis in range(3):  # axis by axis needs a third of the memory
        cell = coord[:, axis].astype(np.float64) / size_m
        offset += np.square(cell - np.floor(cell) - 0.5).astype(np.float32)
    offset = offset[voxels.order]
    least = np.minimum.reduceat(offset, voxels.starts)
    nearest = np.flatnonzero(offset == np.repeat(least, voxels.counts))
    # Written in reverse order, the first of several nearest points remains.
    row = np.searchsorted(voxels.starts, nearest, side="right") - 1
    chosen = np.empty(len(voxels), np.int64)
    chosen[row[::-1]] = nearest[::-1]
    return voxels.order[chosen]


def _voxelize(
    coord: NDArray[np.floating[Any]], size_m: float, max_cells: int, *, with_gaps: bool = True
) -> Voxels:
    """As voxelize; without gaps, cells along an axis that hold no point do not count where they are many."""
    if coord.ndim != 2 or coord.shape[1] != 3:
        raise ValueError(f"voxelize: 'coord' must be (N, 3), got {coord.shape}")
    if len(coord) == 0:
        raise ValueError("voxelize: 'coord' must hold at least one point, got none")
    if not (np.isfinite(size_m) and size_m > 0):
        raise ValueError(f"voxelize: 'size_m' must be above 0 metres, got {size_m}")
    key: NDArray[np.int64] = np.zeros(len(coord), np.int64)
    shape = []
    for axis, name in enumerate(AXES):  # axis by axis: a third of the memory
        values = coord[:, axis].astype(np.float64)
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            bad = int((~np.isfinite(coord).all(axis=1)).sum())
            raise ValueError(
                f"voxelize: 'coord' must be finite, {bad} of {len(coord)} points have NaN or infinite "
                f"{AXES}; drop them first"
            )
        first, last = float(np.floor(low / size_m)), float(np.floor(high / size_m))
        cells = last - first + 1
        if not (with_gaps or cells <= max_cells) and np.isfinite(cells):
            found, rank = np.unique(np.floor(values / size_m), return_inverse=True)
            cells = len(found)
            if cells <= max_cells:
                key *= cells
                key += rank
                shape.append(cells)
                continue
        if not cells <= max_cells:  # in this form NaN, from what overflowed, is refused as well
            raise ValueError(
                f"voxelize: voxels of {size_m:g} m would cut the extent of {high - low:g} m along "
                f"{name} into {cells:,.0f} cells, at most {max_cells:,} are possible; positions must be in "
                f"metres: divide them by 1000 if they are in millimetres, otherwise choose larger voxels "
                f"or cut the cloud"
            )
        values /= size_m
        np.floor(values, out=values)
        values -= first  # while still float: no integer can overflow
        key *= int(cells)
        key += values.astype(np.int64)
        shape.append(int(cells))
    order = _stable_order(key, shape[0] * shape[1] * shape[2])
    key = key[order]
    opens = np.concatenate([[True], key[1:] != key[:-1]])  # (N,) the first point of a voxel
    starts = np.flatnonzero(opens)
    inverse = np.empty(len(key), np.int64)
    inverse[order] = np.cumsum(opens) - 1
    y_and_z = shape[1] * shape[2]
    key = key[starts]
    grid = np.stack([key // y_and_z, key // shape[2] % shape[1], key % shape[2]], axis=1)
    return Voxels(
        grid_coord=grid.astype(np.int32),
        inverse=inverse,
        counts=np.diff(starts, append=len(order)),
        order=order,
    )


def _stable_order(key: NDArray[np.int64], end: int) -> NDArray[np.int64]:
    """``argsort`` of keys in 0 to end - 1; equal keys stay as they came."""
    bits = (len(key) - 1).bit_length()
    if (end - 1).bit_length() + bits > 63:
        return np.argsort(key, kind="stable")
    # Sorting numbers is several times faster than sorting indices by them.
    packed = key << bits | np.arange(len(key))
    packed.sort()
    packed &= (1 << bits) - 1
    return packed
