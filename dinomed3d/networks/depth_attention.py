"""Attention along depth: each patch position sees itself in all slices of the window."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 16
"""Channels of one head, at least, where there is more than one."""
ROTARY_BASE = 100.0
"""Ratio between the slowest and the fastest rotation, that of DINOv3's positions in plane."""


def rotate_by_position(x: Tensor, positions: Tensor) -> Tensor:
    """Rotary position embedding: a product of two rotated vectors depends on their distance alone.

    Args:
        x: (..., L, d), d even; channels i and i + d / 2 are rotated together.
        positions: (L,) of any float type; the fastest pair turns by one radian a unit.

    Returns:
        (..., L, d) in the type of `x`.

    Source: Su 2021, arXiv:2104.09864, section 3.4.
    """
    half = x.shape[-1] // 2
    rates = ROTARY_BASE ** -(torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = positions.to(rates)[:, None] * rates  # (L, d / 2)
    cos, sin = angles.cos().to(x), angles.sin().to(x)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def heads_of(width: int) -> int:
    """Number of heads: as many of at least HEAD_WIDTH channels, an even number, as divide the width."""
    most = max(1, width // HEAD_WIDTH)
    return max(n for n in range(1, most + 1) if width % (2 * n) == 0)


class DepthAttention(nn.Module):
    """Attention over the slices at one patch position, in a bottleneck; its output starts at zero.

    Unlike `Adapter3D` one module reaches all slices of the window. In plane the encoder's own attention
    mixes already. Positions along depth are counted in slices.
    """

    def __init__(self, channels: int, *, width: int) -> None:
        """Build it.

        Args:
            channels: channels of the tokens.
            width: channels of the bottleneck, even; heads of at least HEAD_WIDTH channels divide it.
        """
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"DepthAttention: 'width' must be even and positive, got {width}")
        self.heads = heads_of(width)
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * width)
        self.up = nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor, *, depth: int, grid: tuple[int, int]) -> Tensor:
        """The update that is added to the tokens between a block's attention and its MLP.

        Args:
            tokens: (B * D, P + h * w, C): prefix tokens, then patches row by row.
            depth: D, slices of each window.
            grid: (h, w).

        Returns:
            (B * D, P + h * w, C); zero for the prefix tokens, which have no position in the volume.
        """
        prefix = tokens.shape[1] - grid[0] * grid[1]
        qkv = self.qkv(self.norm(tokens[:, prefix:]))  # (B * D, N, 3 * width)
        volume = qkv.unflatten(0, (-1, depth)).unflatten(3, (3, self.heads, -1))
        q, k, v = volume.permute(3, 0, 2, 4, 1, 5).flatten(1, 2)  # each (B * N, heads, D, d)
        positions = torch.arange(depth, device=tokens.device)
        q, k = rotate_by_position(q, positions), rotate_by_position(k, positions)
        mixed = F.scaled_dot_product_attention(q, k, v)
        mixed = mixed.transpose(1, 2).flatten(2)  # (B * N, D, width)
        mixed = mixed.unflatten(0, (-1, grid[0] * grid[1])).transpose(1, 2).flatten(0, 1)
        return F.pad(self.up(mixed), (0, 0, prefix, 0))
