"""Gated fusion: what the tokens say enters a level of the detail stream, from zero on."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GatedFusion(nn.Module):
    """detail + sigmoid(1x1x1 [detail, u]) * u with u = 1x1x1 semantic, which starts at zero.

    At the start the detail stream passes unchanged, so the network is its CNN; what the tokens add has to be
    learned.

    Source: DINO-Med3D, gated fusion. There the detail enters the tokens; here the tokens enter the detail, so
    that the network starts as good as its CNN.
    """

    def __init__(self, semantic: int, detail: int) -> None:
        """Build it.

        Args:
            semantic: channels of the neck's level.
            detail: channels of the detail stream's level, and of the result.
        """
        super().__init__()
        self.enter = nn.Conv3d(semantic, detail, 1)
        self.gate = nn.Conv3d(2 * detail, detail, 1)
        nn.init.zeros_(self.enter.weight)
        assert self.enter.bias is not None
        nn.init.zeros_(self.enter.bias)

    def forward(self, semantic: Tensor, detail: Tensor) -> Tensor:
        """(B, semantic, D, H, W), (B, detail, D, H, W) -> (B, detail, D, H, W)."""
        update = self.enter(semantic)
        return detail + torch.sigmoid(self.gate(torch.cat([detail, update], 1))) * update
