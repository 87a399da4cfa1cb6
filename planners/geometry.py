"""Sizes of a batch of patches inside the network: slices, tokens, and voxels of every level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dinomed3d.lifting import default_taps
from dinomed3d.networks import NetworkSpec
from planners.encoders import EncoderSize, encoder_size


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Sizes of a batch of patches inside the network."""

    spec: NetworkSpec
    size: EncoderSize
    batch: int
    depth: int
    height: int
    """Rows of a slice after padding, voxels."""
    width: int
    """Columns of a slice after padding, voxels."""
    channels: int
    """Channels of the image, without the previous configuration's segmentation (cascade)."""
    classes: int
    """Channels of the logits."""
    voxels: Sequence[int]
    """Voxels of the whole batch at each level."""

    @classmethod
    def of(
        cls, spec: NetworkSpec, patch: Sequence[int], batch: int, channels: int, classes: int
    ) -> Geometry:
        """Sizes for a patch (D, H, W) or (H, W); `channels` includes the cascade's."""
        depth, height, width = (1, *patch)[-3:]
        height, width = (-(-side // spec.multiple) * spec.multiple for side in (height, width))
        voxels = [
            batch * depth * (height // 2**level) * (width // 2**level)
            for level in range(spec.levels)
        ]
        return cls(
            spec=spec,
            size=encoder_size(spec.encoder, spec.encoder_overrides),
            batch=batch,
            depth=depth,
            height=height,
            width=width,
            channels=channels - spec.cascade_channels,
            classes=classes,
            voxels=voxels,
        )

    @property
    def slices(self) -> int:
        """Slices of the whole batch."""
        return self.batch * self.depth

    @property
    def patches(self) -> int:
        """Patch tokens of one slice."""
        t = self.spec.voxels_per_token
        return (self.height // t) * (self.width // t)

    @property
    def tokens(self) -> int:
        """Tokens of one slice, with class token and registers."""
        return self.patches + self.size.prefix

    @property
    def taps(self) -> Sequence[int]:
        """Blocks whose output the neck reads."""
        return self.spec.taps or default_taps(self.size.depth)

    @property
    def run_blocks(self) -> int:
        """Blocks that are run: those after the last tap are not."""
        return self.taps[-1] + 1

    @property
    def tuned_blocks(self) -> int:
        """Last blocks with low-rank updates and inter-slice modules."""
        return self.spec.tuned_of(self.run_blocks)

    @property
    def enlarged(self) -> float:
        """Values of all slices at the encoder's input."""
        pixels = self.patches * self.size.patch**2
        return self.slices * self.spec.slices * self.channels * pixels
