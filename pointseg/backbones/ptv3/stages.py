"""Stages of the U-Net along curves: pooling or unpooling into a resolution, then its blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pointseg.backbones.interface.image_injection import ImageBranch
from pointseg.backbones.ptv3.pooling import Norm, Pooling, Unpooling
from pointseg.backbones.ptv3.serialization import SerializedVoxels

MakeBlock = Callable[[int, int, float], nn.Module]
"""Makes a block of the number of its stage, its number within the stage and its drop path."""


class Stage(nn.Module):
    """One resolution: pooling or unpooling into it, which the network calls, then its blocks."""

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        *,
        down: Pooling | None = None,
        up: Unpooling | None = None,
    ) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.depth = len(blocks)
        for number, block in enumerate(blocks):
            self.add_module(f"block{number}", block)

    def forward(
        self, feat: Tensor, voxels: SerializedVoxels, nearby: Tensor | None = None
    ) -> Tensor:
        """(M, C) -> (M, C), through the blocks; the first convolution reads ``nearby`` where given."""
        for number in range(self.depth):
            block = self.get_submodule(f"block{number}")
            feat = block(feat, voxels) if nearby is None else block(feat, voxels, nearby)
            nearby = None
        return feat


def make_encoder(
    channels: Sequence[int], drops: Sequence[Sequence[float]], block: MakeBlock, norm: Norm
) -> nn.ModuleDict:
    """Stages "enc0", ... with so many channels, whose blocks have these drop paths."""
    stages: dict[str, nn.Module] = {}
    for s, own in enumerate(drops):
        down = Pooling(channels[s - 1], channels[s], norm) if s else None
        blocks = [block(s, number, drop) for number, drop in enumerate(own)]
        stages[f"enc{s}"] = Stage(blocks, down=down)
    return nn.ModuleDict(stages)


def make_decoder(
    skips: Sequence[int],
    channels: Sequence[int],
    drops: Sequence[Sequence[float]],
    block: MakeBlock,
    norm: Norm,
    *,
    image_channels: int | None = None,
    image_drop: float = 0.0,
) -> nn.ModuleDict:
    """Stages "dec0", ..., the coarsest first.

    Args:
        skips: channels of the encoder's stages.
        channels: of the stages, the finest first.
        drops: drop paths of the blocks of each stage.
        block: makes a block.
        norm: of unpooling.
        image_channels: see ``Backbone``.
        image_drop: probability with which a point's image features are dropped in training.
    """
    below = (*channels[1:], skips[-1])
    stages: dict[str, nn.Module] = {}
    for s, own in reversed(list(enumerate(drops))):
        image = None
        if image_channels is not None:
            image = ImageBranch(image_channels, channels[s], image_drop)
        up = Unpooling(below[s], skips[s], channels[s], norm=norm, image=image)
        # the published networks reverse the sequence of probabilities within a stage
        blocks = [block(s, number, drop) for number, drop in enumerate(own[::-1])]
        stages[f"dec{s}"] = Stage(blocks, up=up)
    return nn.ModuleDict(stages)


def drop_paths(last: float, depths: Sequence[int]) -> list[list[float]]:
    """From 0 at the first block to ``last``, by stage."""
    steps = max(1, sum(depths) - 1)
    every = iter([last * step / steps for step in range(sum(depths))])
    return [[next(every) for _ in range(depth)] for depth in depths]
