"""Levels of PointNeXt: the points of each, and the neighbours between one level and the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pointseg.backbones.interface.features import Level
from pointseg.backbones.pointnext.layers import Neighbours
from pointseg.ops.grouping.cells import Clouds
from pointseg.ops.grouping.neighbours import ball_of


@dataclass(frozen=True)
class Points:
    """The points of one level."""

    clouds: Clouds
    """Their positions, metres."""
    voxels: Tensor
    """(N, 3) int64, of the finest level."""
    offset: Tensor
    """(B,) cumulative counts of the level's points."""
    side: int
    """Voxels along each axis of this level's cells."""

    @property
    def coord(self) -> Tensor:
        """(N, 3) float32 positions, metres."""
        return self.clouds.coord

    def grouped(self, source: Points, radius_m: float, k: int) -> Neighbours:
        """Sources in balls around these points, which are some of them."""
        indices, _ = ball_of(self.clouds, source.clouds, radius_m=radius_m, k=k)
        # positions from the middle of each cloud, so that float32 has most digits for steps
        boxes = source.clouds.boxes
        middle = (boxes.low + boxes.high) / 2
        query, found = (
            (clouds.coord - middle.index_select(0, clouds.batch)) / radius_m
            for clouds in (self.clouds, source.clouds)
        )
        return Neighbours(indices, query, found)

    def level(self, feat: Tensor, parent: Tensor | None) -> Level:
        """With what the network made of them."""
        cells = torch.div(self.voxels, self.side, rounding_mode="floor")
        return Level(self.coord, cells, self.offset, feat, parent)


@dataclass(frozen=True)
class Link:
    """Two levels and the neighbours between them."""

    fine: Points
    """The points of the finer level."""
    coarse: Points
    """The points of the coarser level."""
    rows: Tensor
    """(M,) of the fine points that are the coarse ones."""
    down: Neighbours
    """Fine points around the coarse ones."""
    around: Neighbours | None
    """Coarse points around the coarse ones; None where no layer asks."""
    indices: Tensor
    """(N, 3) the coarse points nearest to each fine one."""
    distances: Tensor
    """(N, 3) the distances to these points, metres."""

    @property
    def parent(self) -> Tensor:
        """(N,) the coarse point nearest to each fine one."""
        return self.indices[:, 0]
