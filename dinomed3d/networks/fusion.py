"""Gated fusion: a gate decides how much of the detail stream enters the encoder's features."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GatedFusion(nn.Module):
    """semantic + sigmoid(1x1x1 [semantic, detail]) * detail, both of the same width and size."""

    def __init__(self, semantic: int, detail: int) -> None:
        """Build it.

        Args:
            semantic: channels of the neck's level.
            detail: channels of the detail stream's level, and of the result.
        """
        super().__init__()
        self.align = nn.Conv3d(semantic, detail, 1)
        self.gate = nn.Conv3d(2 * detail, detail, 1)

    def forward(self, semantic: Tensor, detail: Tensor) -> Tensor:
        """(B, semantic, D, H, W), (B, detail, D, H, W) -> (B, detail, D, H, W)."""
        semantic = self.align(semantic)
        return semantic + torch.sigmoid(self.gate(torch.cat([semantic, detail], 1))) * detail
