"""The 2D encoder on a volume: slices in, token volumes out, 3D adapters inside its blocks."""

from __future__ import annotations

from torch import Tensor, nn

from dinomed3d.lifting import DinoEncoder, unstack_slices
from dinomed3d.networks.adapter import Adapter3D


class VolumeEncoder(nn.Module):
    """A DINO encoder whose blocks hold 3D adapters between attention and MLP."""

    def __init__(self, encoder: DinoEncoder, adapters: nn.ModuleList) -> None:
        """Combine encoder and adapters.

        Args:
            encoder: with inflated patch embedding and low-rank updates.
            adapters: one Adapter3D per block, or none at all.
        """
        super().__init__()
        if len(adapters) not in (0, encoder.depth):
            raise ValueError(f"VolumeEncoder: {len(adapters)} adapters for {encoder.depth} blocks")
        self.encoder = encoder
        self.adapters = adapters

    def forward(self, images: Tensor, *, depth: int) -> list[Tensor]:
        """Encode all slices of all volumes.

        Args:
            images: (B * D, K * C, H', W'), sides multiples of the encoder's patch.
            depth: D.

        Returns:
            One (B, E, D, h, w) per tap.
        """
        encoder = self.encoder
        height, width = images.shape[-2:]
        grid = (height // encoder.stride, width // encoder.stride)
        tokens, rope = encoder.embed(images)
        taps = []
        for number in range(encoder.taps[-1] + 1):
            tokens = encoder.checkpointed(self.block, number, tokens, rope, depth, grid)
            if number in encoder.taps:
                taps.append(unstack_slices(encoder.to_map(tokens, height, width), depth=depth))
        return taps

    def block(
        self, number: int, tokens: Tensor, rope: Tensor | None, depth: int, grid: tuple[int, int]
    ) -> Tensor:
        """One block with its adapter between attention and MLP. (B * D, N, E) -> (B * D, N, E)."""
        tokens = self.encoder.attention_half(number, tokens, rope)
        if len(self.adapters):
            adapter = self.adapters[number]
            assert isinstance(adapter, Adapter3D)
            tokens = tokens + adapter(tokens, depth=depth, grid=grid)
        return self.encoder.mlp_half(number, tokens)
