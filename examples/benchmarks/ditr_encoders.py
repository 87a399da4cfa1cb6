"""Encoders that a pretrained one is compared with: its own weights in another order, and the pixels themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from dinomed3d.lifting import DinoEncoder, Encoder


def permuted(encoder: DinoEncoder, seed: int = 0) -> DinoEncoder:
    """Permute the values within each tensor, in place: the same numbers, but nothing that was learned."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in encoder.state_dict().values():
            order = torch.randperm(values.numel(), generator=generator)
            values.copy_(values.flatten()[order].view_as(values))
    return encoder


class PixelColors(Encoder):
    """Gives the normalised colours of the pixels themselves as features."""

    channels, stride, taps = 3, 1, (0,)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """See Encoder.maps."""
        return (images,)

    def bytes_per_image(self, height: int, width: int) -> int:
        """See Encoder.bytes_per_image."""
        return 24 * height * width
