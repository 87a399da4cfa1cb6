"""One number for each voxel of a batch, in the order of its clouds and of x, y and z."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_MAX_KEY = 2**62


def voxel_extent(grid_coord: Tensor, batch: Tensor) -> tuple[int, ...]:
    """The number of clouds, and of voxels along x, y and z, which the host reads at once.

    Args:
        grid_coord: (N, 3) int64, >= 0.
        batch: (N,) int64 cloud of each.

    Raises:
        ValueError: negative voxels.
    """
    if not len(grid_coord):
        return 1, 1, 1, 1
    low, high = torch.cat([batch[:, None], grid_coord], 1).aminmax(dim=0)
    _, *lowest, clouds, x, y, z = torch.cat([low, high]).tolist()
    if min(lowest) < 0:
        raise ValueError(f"voxel_keys: 'grid_coord' must be >= 0, got {min(lowest)}")
    return clouds + 1, x + 1, y + 1, z + 1


def voxel_keys(grid_coord: Tensor, batch: Tensor, *, extent: Sequence[int] | None = None) -> Tensor:
    """(N,) int64 numbers of voxels, ascending in cloud, x, y, z.

    Args:
        grid_coord: (N, 3) int64, >= 0.
        batch: (N,) int64 cloud of each.
        extent: as ``voxel_extent`` returns it; None: it is asked.

    Raises:
        ValueError: negative voxels, or more than 62 bits can number.
    """
    clouds, x, y, z = voxel_extent(grid_coord, batch) if extent is None else extent
    if clouds * x * y * z > _MAX_KEY:
        raise ValueError(
            f"voxel_keys: {clouds} clouds of {x} x {y} x {z} voxels do not fit into 62 bits; use a "
            "larger voxel, or crop"
        )
    return ((batch * x + grid_coord[:, 0]) * y + grid_coord[:, 1]) * z + grid_coord[:, 2]
