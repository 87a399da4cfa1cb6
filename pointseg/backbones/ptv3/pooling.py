"""Stem, pooling and unpooling of Point Transformer V3 (Wu et al., CVPR 2024) and its descendants."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from pointseg.backbones.interface.image_injection import ImageBranch
from pointseg.backbones.interface.norm import BatchNorm
from pointseg.backbones.ptv3.serialization import SerializedVoxels
from pointseg.ops.convolution.layers import SubmanifoldConv3d
from pointseg.ops.grouping.segments import Segments
from pointseg.ops.hardware.linear import Linear

Norm = Callable[[int], nn.Module]
"""Makes the normalisation of so many channels: ``BatchNorm`` or ``nn.LayerNorm``."""


class Stem(nn.Module):
    """A 5 x 5 x 5 convolution with normalisation."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.ModuleDict(
            {
                "conv": SubmanifoldConv3d(in_channels, channels, 5, bias=False),
                "norm": BatchNorm(channels),
                "act": nn.GELU(),
            }
        )

    def forward(self, feat: Tensor, voxels: SerializedVoxels) -> Tensor:
        """(N, in_channels) -> (N, C)."""
        grid = voxels.grid.apart()  # nothing else has a kernel of 125 offsets, whose map is large
        out: Tensor = self.stem["act"](self.stem["norm"](self.stem["conv"](feat, grid)))
        return out


class Pooling(nn.Module):
    """Grid pooling of the encoder: a linear layer, the maximum over each cell, normalisation."""

    def __init__(self, in_channels: int, channels: int, norm: Norm = BatchNorm) -> None:
        super().__init__()
        self.proj = Linear(in_channels, channels)
        self.norm = nn.Sequential(norm(channels))
        self.act = nn.GELU()

    def forward(self, feat: Tensor, cells: Segments) -> Tensor:
        """(N, in_channels) -> (M, C)."""
        out: Tensor = self.act(self.norm(cells.reduce(self.proj(feat), "max")))
        return out


class Unpooling(nn.Module):
    """Upsampling of the decoder: the sum of coarse features, the skip and the projected image features.

    ``proj_skip`` projects the skip, (N, skip_channels) -> (N, C), before it is given to ``forward``.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        channels: int,
        *,
        norm: Norm = BatchNorm,
        image: ImageBranch | None = None,
    ) -> None:
        super().__init__()
        self.proj = nn.Sequential(Linear(in_channels, channels), norm(channels), nn.GELU())
        self.proj_skip = nn.Sequential(Linear(skip_channels, channels), norm(channels), nn.GELU())
        self.proj_image_feat = image

    def forward(
        self, feat: Tensor, skip: Tensor, cells: Segments, image: Tensor | None = None
    ) -> Tensor:
        """(M, in_channels), the projected (N, C) skip, (N, image_channels) -> their (N, C) sum."""
        out = skip + cells.spread(self.proj(feat))
        if self.proj_image_feat is not None and image is not None:
            out = out + self.proj_image_feat(image)
        return out
