"""MinkUNet as Pointcept's SparseUNet: a U-Net of residual blocks of sparse convolutions."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from pointseg.backbones.interface.features import Backbone, Features, Level
from pointseg.backbones.interface.image_injection import (
    ImageBranch,
    check_pooling,
    pool_images,
)
from pointseg.backbones.interface.norm import BatchNorm
from pointseg.cloud import Cloud
from pointseg.conventions import ImagePooling
from pointseg.ops.convolution.grid import Grid
from pointseg.ops.convolution.layers import InverseConv3d, StridedConv3d, SubmanifoldConv3d
from pointseg.ops.grouping.offsets import ends_of
from pointseg.ops.grouping.segments import Segments


class MinkUNet(Backbone):
    """Encoder of strided convolutions and residual blocks, decoder with skip connections.

    Parameters have the names and shapes of Pointcept's ``SpUNet-v1m1``, whose checkpoints therefore
    load; the defaults are its MinkUNet34C. It reads colours scaled to -1 to 1.

    Source: Choy 2019, arXiv:1904.08755, figure 5; layout of weights and the order of operations as
    in Pointcept. Differs: it also returns the features of every level.

    Args:
        in_channels: features per point.
        num_classes: outputs of a last linear layer; 0: none, the decoder's features come out.
        base_channels: width of the stem.
        channels: widths of the encoder's stages, then of the decoder's, coarsest first.
        layers: residual blocks of each of them.
        image_channels: channels of the image features given with each cloud; None: it takes none.
        image_drop: probability with which a point's image features are dropped in training.
        image_pooling: how image features are pooled to coarser levels, see ``ImagePooling``.

    Raises:
        ValueError: ``channels`` and ``layers`` that are not equally long and even, an unknown pooling.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int = 0,
        base_channels: int = 32,
        channels: tuple[int, ...] = (32, 64, 128, 256, 256, 128, 96, 96),
        layers: tuple[int, ...] = (2, 3, 4, 6, 2, 2, 2, 2),
        image_channels: int | None = None,
        image_drop: float = 0.0,
        image_pooling: ImagePooling = "max",
    ) -> None:
        super().__init__()
        channels, layers = tuple(channels), tuple(layers)
        if len(channels) != len(layers) or len(channels) % 2 or not channels:
            raise ValueError(
                "MinkUNet: 'channels' and 'layers' must be equally many, the encoder's and as many of "
                f"the decoder's, got {channels} and {layers}"
            )
        check_pooling("MinkUNet", image_pooling)
        stages = len(layers) // 2
        self.image_channels, self.image_pooling = image_channels, image_pooling
        self.in_channels = in_channels
        self.out_channels = num_classes or channels[-1]
        self.level_channels = (self.out_channels, *channels[-2 : stages - 2 : -1])
        self.conv_input = _Unit(SubmanifoldConv3d(in_channels, base_channels, 5, bias=False))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.enc, self.dec = nn.ModuleList(), nn.ModuleList()
        fine = (base_channels, *channels[: stages - 1])  # widths of the skip connections
        for stage in range(stages):
            width, depth = channels[stage], layers[stage]
            self.down.append(_Unit(StridedConv3d(fine[stage], width, bias=False)))
            self.enc.append(_Stage(width, width, depth))
            back, below = channels[-1 - stage], channels[-2 - stage]
            self.up.append(_Unit(InverseConv3d(below, back, bias=False)))
            self.dec.append(_Stage(back + fine[stage], back, layers[-1 - stage]))
        self.final: nn.Module = (
            SubmanifoldConv3d(channels[-1], num_classes, 1) if num_classes else nn.Identity()
        )
        for module in self.modules():
            if isinstance(module, SubmanifoldConv3d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # last, so that the other weights of a seed are the same without them
        self.proj_image_feat = nn.ModuleList()
        if image_channels is not None:
            for width in fine:
                self.proj_image_feat.append(ImageBranch(image_channels, width, image_drop))

    def forward(
        self, cloud: Cloud, image_feat: Tensor | None = None, image_seen: Tensor | None = None
    ) -> Features:
        """Features of the points and of all levels; see ``Backbone.forward``."""
        self.check_input(cloud, image_feat, image_seen)
        grid, order = Grid(cloud.grid_coord, cloud.batch).sorted()
        grids = [grid]
        # Only the stem has a kernel of 125 offsets; its map is freed with a grid of its own.
        feat = self.conv_input(
            cloud.feat.index_select(0, order), grid.apart()
        )  # (N, base_channels)
        skips = []
        for down, enc in zip(self.down, self.enc, strict=True):
            skips.append(feat)
            feat = enc(down(feat, grids[-1]), grids[-1].coarser()[0])  # (N / 2^dim, channels)
            grids.append(grids[-1].coarser()[0])
        place = torch.empty_like(order)
        place[order] = torch.arange(
            len(order), device=order.device
        )  # the row of each point in the grid
        cells = _cells(grids, place)
        images: list[Tensor] = []
        if image_feat is not None:
            images = pool_images(image_feat, image_seen, cells[:-1], self.image_pooling)
        feats = [feat]
        for stage in reversed(range(len(skips))):
            skip = skips.pop()
            if images:
                shown = self.proj_image_feat[stage](images.pop())
                # the wide features of the points are never sorted
                skip = skip + (shown if stage else shown.index_select(0, order))
            back = self.up[stage](feat, grids[stage])
            both = torch.cat([back, skip], 1)
            del back, skip  # nothing reads them again, and the finest stages take most memory
            feat = self.dec[stage](both, grids[stage])
            del both
            feats.append(feat)
        if isinstance(self.final, SubmanifoldConv3d):
            feats[-1] = self.final(feat, grid)
        feats[-1] = feats[-1].index_select(0, place)
        return Features(feats[-1], _levels(cloud, grids, feats[::-1], cells))


class _Unit(nn.Sequential):
    """Sparse convolution, normalisation, activation."""

    def __init__(self, convolution: SubmanifoldConv3d | StridedConv3d | InverseConv3d) -> None:
        super().__init__(convolution, BatchNorm(convolution.out_channels), nn.ReLU(inplace=True))

    def forward(self, feat: Tensor, grid: Grid) -> Tensor:  # type: ignore[override]
        convolution, norm, activation = self
        return activation(norm(convolution(feat, grid)))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Sequential()
        if in_channels != channels:
            self.proj.append(SubmanifoldConv3d(in_channels, channels, 1, bias=False))
            self.proj.append(BatchNorm(channels))
        self.conv1 = SubmanifoldConv3d(in_channels, channels, 3, bias=False)
        self.bn1 = BatchNorm(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = SubmanifoldConv3d(channels, channels, 3, bias=False)
        self.bn2 = BatchNorm(channels)

    def forward(self, feat: Tensor, grid: Grid) -> Tensor:
        around = feat
        if len(self.proj):
            around = self.proj[1](self.proj[0](feat, grid))
        feat = self.relu(self.bn1(self.conv1(feat, grid)))
        feat = self.bn2(self.conv2(feat, grid))
        feat += around  # in place: normalisation needs its input again, not its output
        return self.relu(feat)  # type: ignore[no-any-return]


class _Stage(nn.Sequential):
    """Residual blocks at one resolution, the first of which may change the width."""

    def __init__(self, in_channels: int, channels: int, depth: int) -> None:
        blocks = (_Block(in_channels if i == 0 else channels, channels) for i in range(depth))
        super().__init__(OrderedDict((f"block{i}", block) for i, block in enumerate(blocks)))

    def forward(self, feat: Tensor, grid: Grid) -> Tensor:  # type: ignore[override]
        for block in self:
            feat = block(feat, grid)
        return feat


def _cells(grids: list[Grid], place: Tensor) -> list[Segments]:
    """In which cell of the next grid each row of a level is.

    The rows of the finest level are the cloud's points, which are at ``place`` in the finest grid.
    """
    first, *others = (fine.cells() for fine in grids[:-1])
    return [Segments.known(first.index.index_select(0, place), len(first)), *others]


def _levels(
    cloud: Cloud, grids: list[Grid], feats: list[Tensor], cells: list[Segments]
) -> tuple[Level, ...]:
    coord, voxels, offset = cloud.coord, cloud.grid_coord, cloud.offset
    levels = []
    for segments, coarse, feat in zip(cells, grids[1:], feats[:-1], strict=True):
        levels.append(Level(coord, voxels, offset, feat, segments.index))
        coord, voxels = segments.reduce(coord, "mean"), coarse.coord
        offset = ends_of(coarse.batch, len(offset))
    levels.append(Level(coord, voxels, offset, feats[-1], None))
    return tuple(levels)
