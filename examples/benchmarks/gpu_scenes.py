"""Clouds and numbers for `gpu.py`, the same on every device."""

from __future__ import annotations

import torch
from gpu_equal import Side
from sparse_convolution import CHANNELS, room
from torch import Tensor

from pointseg.cloud import Cloud
from pointseg.ops.convolution.grid import Grid
from pointseg.ops.grouping.offsets import batch_of

VOXEL_M = 0.02
"""Side of a voxel, metres."""
CLASSES = 20
"""Labels of the points."""


class Scene:
    """Two clouds of voxels on the surfaces of rooms, the second half as large as the first."""

    def __init__(self, count: int) -> None:
        self.counts = [count, count // 2]
        self.voxels = torch.cat([room(size, seed) for seed, size in enumerate(self.counts)])
        self.offset = torch.tensor(self.counts).cumsum(0)
        self.batch = batch_of(self.offset, len(self.voxels))

    def grid(self, side: Side) -> Grid:
        """The voxels on a device."""
        return Grid(side.at(self.voxels), side.at(self.batch))

    def metres(self) -> Tensor:
        """(N, 3) positions, not all at the centres of their voxels."""
        return (self.voxels + self.numbers(3).sigmoid()) * VOXEL_M

    def numbers(self, width: int, seed: int = 2) -> Tensor:
        """(N, width) normal numbers."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(len(self.voxels), width, generator=generator)

    def cloud(self, channels: int = CHANNELS) -> Cloud:
        """Both clouds as a batch, with labels."""
        segment = (self.numbers(1, seed=8)[:, 0].abs() * 8).long().clamp(max=CLASSES) - 1
        return Cloud(
            coord=self.metres(),
            grid_coord=self.voxels,
            feat=self.numbers(channels, seed=1),
            offset=self.offset,
            segment=segment,
        )


def single(count: int) -> Cloud:
    """One cloud of voxels on the surfaces of a room, with labels."""
    generator = torch.Generator().manual_seed(1)
    voxels = room(count)
    return Cloud(
        coord=voxels * VOXEL_M,
        grid_coord=voxels,
        feat=torch.randn(count, CHANNELS, generator=generator),
        offset=torch.tensor([count]),
        segment=torch.randint(0, CLASSES, (count,), generator=generator),
    )
