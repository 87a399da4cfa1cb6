"""Lightweight 3D adapters inside the transformer blocks: they exchange information between slices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Adapter3D(nn.Module):
    """Bottleneck with a convolution over three slices; its output starts at zero.

    Beyond both ends of the volume the end slice is repeated, as the embedding repeats it. In plane
    the encoder's own attention mixes already. (A depthwise 3 x 3 x 3 convolution has fewer weights,
    but was five times slower on CPUs in bfloat16.)

    Source: DINO-Med3D, the 3D adapters of stage II.
    """

    def __init__(self, channels: int, *, width: int) -> None:
        """Build it.

        Args:
            channels: channels of the tokens.
            width: channels of the bottleneck.
        """
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, width)
        self.mix = nn.Conv3d(width, width, (3, 1, 1))
        self.up = nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor, *, depth: int, grid: tuple[int, int]) -> Tensor:
        """The update that is added to the tokens between a block's attention and its MLP.

        Args:
            tokens: (B * D, P + h * w, C): prefix tokens, then patches row by row.
            depth: D, slices of each volume.
            grid: (h, w).

        Returns:
            (B * D, P + h * w, C); zero for the prefix tokens, which have no position in the volume.
        """
        prefix = tokens.shape[1] - grid[0] * grid[1]
        x = self.down(self.norm(tokens[:, prefix:]))
        volume = x.transpose(1, 2).unflatten(2, grid).unflatten(0, (-1, depth)).transpose(1, 2)
        ends = torch.cat([volume[:, :, :1], volume, volume[:, :, -1:]], dim=2)
        mixed = F.gelu(self.mix(ends)).transpose(1, 2).flatten(0, 1).flatten(2).transpose(1, 2)
        return F.pad(self.up(mixed), (0, 0, prefix, 0))
