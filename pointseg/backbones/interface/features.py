"""The interface of a 3D backbone: features of every point, and of every coarser level."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from pointseg.backbones.interface.image_injection import check_images
from pointseg.cloud import Cloud
from pointseg.conventions import ImagePooling


@dataclass(frozen=True)
class Level:
    """One resolution of a backbone."""

    coord: Tensor
    """(M, 3) metres, the mean of the points that were pooled."""
    grid_coord: Tensor
    """(M, 3) int64 voxels of this level."""
    offset: Tensor
    """(B,) cumulative counts of this level's points."""
    feat: Tensor
    """(M, C) output of the decoder at this level; at the coarsest level, or without a decoder, of the encoder."""
    parent: Tensor | None
    """(M,) row of each point in the next coarser level; None at the coarsest. Features of images and
    other values per point are pooled along it."""


@dataclass(frozen=True)
class Features:
    """The output of a backbone for a batch of clouds."""

    feat: Tensor
    """(N, C) features of each point."""
    levels: tuple[Level, ...]
    """All resolutions: the finest first, whose ``feat`` is that of the points unless there is no decoder; the
    bottleneck last."""


class Backbone(nn.Module):
    """A network that reads a batch of clouds."""

    in_channels: int
    """Channels of ``Cloud.feat``."""
    out_channels: int
    """Channels of ``Features.feat``."""
    level_channels: tuple[int, ...]
    """Channels of each of ``Features.levels``, the finest first."""
    takes_mask: bool = False
    """Whether it reads ``Cloud.mask``."""
    image_channels: int | None = None
    """Channels of the image features that are given with each cloud; None: it takes none."""
    image_pooling: ImagePooling = "max"
    """How image features are pooled to coarser levels."""
    plugin: str | None = None
    """``package.module:Class`` of a network that is not built in; set by ``build_backbone``."""

    def forward(
        self, cloud: Cloud, image_feat: Tensor | None = None, image_seen: Tensor | None = None
    ) -> Features:
        """Features of the cloud's points, and of all levels.

        Args:
            cloud: N points.
            image_feat: (N, image_channels) image feature of each point, 0 where no image shows it;
                required if, and only if, ``image_channels`` is set. It is pooled along with the points
                and added at each level of the decoder.
            image_seen: (N,) bool, whether an image shows the point; needed for masked pooling.

        Raises:
            ValueError: channels that do not fit; image features missing or not taken; coordinates that
                the network cannot hold.
        """
        raise NotImplementedError

    def check_input(
        self, cloud: Cloud, image_feat: Tensor | None, image_seen: Tensor | None
    ) -> None:
        """Refuse what ``forward`` does not take.

        Raises:
            ValueError: other channels than the network reads; a mask that it does not take; image features
                missing or not taken.
        """
        name = type(self).__name__
        if not isinstance(cloud, Cloud):
            raise ValueError(
                f"{name}: 'cloud' must be a pointseg.Cloud(coord=..., grid_coord=..., feat=..., offset=...), got "
                f"{type(cloud).__name__}"
            )
        if cloud.mask is not None and not self.takes_mask:
            raise ValueError(
                f"{name}: the cloud's 'mask' must be left out: only a network built with mask_token=True reads it"
            )
        if cloud.feat.shape[1:] != (self.in_channels,):
            raise ValueError(
                f"{name}: the cloud's 'feat' must be (N, {self.in_channels}), got {tuple(cloud.feat.shape)}"
            )
        check_images(
            name, len(cloud), self.image_channels, self.image_pooling, image_feat, image_seen
        )
