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
        cells = grid[0] * grid[1]
        prefix = tokens.shape[1] - cells
        x = self.down(self.norm(tokens[:, prefix:]))
        mixed = F.gelu(self._across_slices(x.unflatten(0, (-1, depth)))).flatten(0, 1)
        return F.pad(self.up(mixed), (0, 0, prefix, 0))

    def _across_slices(self, volumes: Tensor) -> Tensor:
        """`mix` as three products of the same rows, shifted by a slice. (B, D, N, width) -> the same.

        A convolution would want channels first, and transposes cost more than the products.
        """
        count, depth, cells, width = volumes.shape
        ends = torch.cat([volumes[:, :1], volumes, volumes[:, -1:]], dim=1)
        rows = ends.view(-1, width)  # volumes one after the other, each with its two repeated ends
        below, at, above = self.mix.weight[..., 0, 0].unbind(-1)
        mixed = F.linear(rows[cells:-cells], at, self.mix.bias)
        mixed.addmm_(rows[: -2 * cells], below.T.to(mixed))
        mixed.addmm_(rows[2 * cells :], above.T.to(mixed))
        # after each volume come two slices that mix it with the next one: none after the last
        whole = F.pad(mixed, (0, 0, 0, 2 * cells)).view(count, depth + 2, cells, width)
        return whole[:, :depth]
