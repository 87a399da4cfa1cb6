"""A batch of patches on the network's grids: slices, tokens, and voxels of every level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dinomed3d.lifting import default_taps
from dinomed3d.networks import NetworkSpec
from planners.encoders import EncoderSize, encoder_size


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A batch of patches on the network's grids."""

    spec: NetworkSpec
    size: EncoderSize
    batch: int
    depth: int
    height: int
    """In plane as padded inside, voxels."""
    width: int
    channels: int
    """Of the image, without an earlier stage's segmentation."""
    classes: int
    voxels: Sequence[int] = field(default=())
    """Of the whole batch, by level."""

    @classmethod
    def of(
        cls, spec: NetworkSpec, patch: Sequence[int], batch: int, channels: int, classes: int
    ) -> Geometry:
        """From a patch (D, H, W) or (H, W), and the input's channels, earlier stage included."""
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
        """All slices of the batch."""
        return self.batch * self.depth

    @property
    def patches(self) -> int:
        """Patch tokens of one slice."""
        t = self.spec.voxels_per_token
        return (self.height // t) * (self.width // t)

    @property
    def tokens(self) -> int:
        """Tokens of one slice with the prefix."""
        return self.patches + self.size.prefix

    @property
    def taps(self) -> Sequence[int]:
        """Blocks that are read."""
        return self.spec.taps or default_taps(self.size.depth)

    @property
    def enlarged(self) -> float:
        """Values of all slices as they enter the encoder."""
        pixels = self.patches * self.size.patch**2
        return self.slices * self.spec.slices * self.channels * pixels
