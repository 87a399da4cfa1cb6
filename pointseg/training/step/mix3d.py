"""Mix3D: training on two scenes laid over each other, so that context alone does not decide a class."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from pointseg.cloud import PER_POINT, Cloud


def mix3d(cloud: Cloud, probability: float, rng: np.random.Generator) -> Cloud:
    """With some probability, merge each two consecutive clouds of a batch into one.

    Each cloud keeps its coordinates, metric and voxel, so that the two lie over each other at the
    corner of their voxel grids. Where both have a point in one voxel, one of the two, at random,
    is left out with all its fields. A last cloud without a partner stays as it is.

    Args:
        cloud: a batch; no two points of one cloud share a voxel.
        probability: for the batch as a whole, 0 to 1.
        rng: decides whether, and which points stay.

    Returns:
        The batch with ``offset`` of the merged clouds and ``image_offset`` of the unmerged ones.

    Raises:
        ValueError: not a probability; voxel coordinates that are negative or too large for one 64-bit key.

    Source: Nekrasov 2021, arXiv:2110.02210, section 3; with probability 0.8 as in PTv3. Differs: PTv3's
    released code keeps both points of a shared voxel, which sparse operators then read as they please.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"mix3d: 'probability' must be in 0 to 1, got {probability}")
    if rng.random() >= probability or len(cloud.offset) < 2:
        return cloud
    kept = _one_per_voxel(cloud, rng)
    rows = {
        field.name: getattr(cloud, field.name)[kept]
        for field in fields(cloud)
        if field.name in PER_POINT and getattr(cloud, field.name) is not None
    }
    # Rows that stay, up to each of the old ends.
    before = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])
    offset = before[cloud.offset]
    images = offset if cloud.image_offset is None else before[cloud.image_offset]
    merged = offset[1::2].contiguous()
    if len(offset) % 2:
        merged = torch.cat([merged, offset[-1:]])
    return replace(cloud, **rows, offset=merged, image_offset=images)


def _one_per_voxel(cloud: Cloud, rng: np.random.Generator) -> Tensor:
    """(N,) bool: one random point of each voxel of each pair of clouds."""
    grid, pair = cloud.grid_coord, cloud.batch // 2
    x, y, z = (int(n) + 1 for n in grid.amax(0)) if len(grid) else (1, 1, 1)
    if (grid < 0).any() or x * y * z * (len(cloud.offset) // 2 + 1) >= 2**63:
        raise ValueError(
            f"mix3d: 'grid_coord' must be >= 0 and below 65536, got {grid.amin(0).tolist()} to "
            f"{grid.amax(0).tolist()}"
        )
    key = ((pair * x + grid[:, 0]) * y + grid[:, 1]) * z + grid[:, 2]
    # Shuffled, then sorted by voxel with ties as they come: the first of each voxel is a random one.
    shuffled = torch.from_numpy(rng.permutation(len(key))).to(key.device)
    values, order = torch.sort(key[shuffled], stable=True)
    first = torch.ones_like(values, dtype=torch.bool)
    first[1:] = values[1:] != values[:-1]
    return torch.zeros_like(first).scatter_(0, shuffled[order], first)
