"""What a 3D backbone promises: features of every point, and of every coarser level."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from pointseg.cloud import Cloud


@dataclass(frozen=True)
class Level:
    """One resolution of a backbone."""

    coord: Tensor
    """(M, 3) metres, the mean of the points that were pooled."""
    grid_coord: Tensor
    """(M, 3) int64 voxels of this level."""
    offset: Tensor
    """(B,) cumulative counts."""
    feat: Tensor
    """(M, C) what the decoder made of it; at the coarsest level, the encoder."""
    parent: Tensor | None
    """(M,) row of each site in the next coarser level; None at the coarsest. What is known per point,
    such as features of images, is pooled along it."""


@dataclass(frozen=True)
class Features:
    """What a backbone makes of a batch of clouds."""

    feat: Tensor
    """(N, C) per point."""
    levels: tuple[Level, ...]
    """The finest first, whose ``feat`` is that of the points; the bottleneck last."""


class Backbone(nn.Module):
    """A network that reads a batch of clouds; what its subclasses state about themselves."""

    in_channels: int
    out_channels: int
    """Of ``Features.feat``."""
    level_channels: tuple[int, ...]
    """Of ``Features.levels``, the finest first."""
    image_channels: int | None = None
    """Of the features of images that it is given with each cloud; None: it takes none."""

    def forward(
        self, cloud: Cloud, image_feat: Tensor | None = None, image_seen: Tensor | None = None
    ) -> Features:
        """Features of the cloud's points, and of all levels.

        Args:
            cloud: N points.
            image_feat: (N, image_channels) what images show at each point, 0 where none does; given
                where, and only where, the network takes it.
            image_seen: (N,) bool, whether one does; needed for masked pooling.
        """
        raise NotImplementedError
