"""Sizes of a batch of patches inside the network: slices, tokens, and voxels of every level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dinomed3d.networks import NetworkSpec, neck_taps
from planners.cost.encoder_sizes import EncoderSize, encoder_size

Triple = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Sizes of a batch of patches inside the network."""

    spec: NetworkSpec
    size: EncoderSize
    batch: int
    patch: Triple
    """(D, H, W) of a patch, voxels; 2D patches have one slice."""
    channels: int
    """Channels of the image, without the previous configuration's segmentation (cascade)."""
    classes: int
    """Channels of the logits."""

    @classmethod
    def of(
        cls, spec: NetworkSpec, patch: Sequence[int], batch: int, channels: int, classes: int
    ) -> Geometry:
        """Sizes for a patch (D, H, W) or (H, W); `channels` includes the cascade's."""
        depth, height, width = (1, *patch)[-3:]
        return cls(
            spec=spec,
            size=encoder_size(spec.encoder, spec.encoder_overrides),
            batch=batch,
            patch=(depth, height, width),
            channels=channels - spec.cascade_channels,
            classes=classes,
        )

    def level(self, number: int) -> Triple:
        """Cells (D, H, W) of a level of the CNN, whose input is padded until all its strides divide it."""
        cells = zip(self.patch, self.spec.cnn.cells[-1], self.spec.cnn.cells[number], strict=True)
        depth, height, width = (-(-side // last) * last // cell for side, last, cell in cells)
        return depth, height, width

    @property
    def voxels(self) -> list[int]:
        """Cells of the whole batch at each level of the CNN, finest first."""
        return [self.batch * math.prod(self.level(n)) for n in range(self.spec.cnn.levels)]

    @property
    def grid(self) -> Triple:
        """Tokens (D, H, W) of a patch; D is the number of encoded slices."""
        cells = zip(self.patch, self.spec.token_cell, strict=True)
        depth, height, width = (-(-side // cell) for side, cell in cells)
        return depth, height, width

    @property
    def slices(self) -> int:
        """Encoded slices of the whole batch."""
        return self.batch * self.grid[0]

    @property
    def patches(self) -> int:
        """Patch tokens of one slice."""
        return self.grid[1] * self.grid[2]

    @property
    def tokens(self) -> int:
        """Tokens of one slice, with class token and registers."""
        return self.patches + self.size.prefix

    @property
    def taps(self) -> Sequence[int]:
        """Blocks whose output the neck reads."""
        return self.spec.taps or neck_taps(self.size.depth)

    @property
    def blocks(self) -> int:
        """Blocks that run: those up to the last tap."""
        return self.taps[-1] + 1

    @property
    def tuned(self) -> int:
        """Blocks that stage II tunes, the last of those that run; the others are frozen."""
        if {"lora", "adapters"}.isdisjoint(self.spec.components):
            return 0
        return self.spec.tuned_of(self.blocks)

    @property
    def enlarged(self) -> float:
        """Values of all encoded slices at the encoder's input."""
        pixels = self.patches * self.size.patch**2
        return self.slices * self.spec.slices * self.channels * pixels


def tokens_of(spec: NetworkSpec, patch: Sequence[int]) -> int:
    """Patch tokens of one slice of a patch (D, H, W) or (H, W)."""
    return math.prod(-(-side // spec.voxels_per_token) for side in patch[-2:])
