"""The 2D encoder on a volume: slices in, token volumes out, inter-slice modules in its last blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dinomed3d.lifting import DinoEncoder, unstack_slices
from dinomed3d.networks.encoder_precision import encoder_precision


@dataclass(frozen=True, kw_only=True)
class SliceTokens:
    """Slices after the blocks that read each of them alone: windows that share slices share these."""

    tokens: Tensor
    """(N, P + h * w, E): prefix tokens, then patches row by row."""
    taps: tuple[Tensor, ...]
    """One (N, E, h, w) for each tap among these blocks."""
    rope: Tensor | None
    """Rotary position embedding of the patches, the same for all slices."""
    image_size: tuple[int, int]
    """(H', W') of the images, pixels."""


class VolumeEncoder(nn.Module):
    """A DINO encoder whose last blocks are tuned: low-rank updates and inter-slice modules live there.

    An inter-slice module (`Adapter3D` or `DepthAttention`) stands between a block's attention and its
    MLP and is the only place where slices see each other. The blocks before the first of them read
    every slice alone.
    """

    def __init__(self, encoder: DinoEncoder, adapters: nn.ModuleList, *, tuned_blocks: int) -> None:
        """Combine encoder and inter-slice modules.

        Args:
            encoder: with inflated patch embedding, and low-rank updates in its tuned blocks.
            adapters: one inter-slice module for each tuned block, or none at all.
            tuned_blocks: number of last blocks, of those up to the last tap, that learn in stage II.

        Raises:
            ValueError: more tuned blocks than blocks, or another number of modules.
        """
        super().__init__()
        if not 0 <= tuned_blocks <= encoder.run_blocks:
            raise ValueError(
                f"VolumeEncoder: 'tuned_blocks' must be 0 to {encoder.run_blocks}, got {tuned_blocks}"
            )
        if len(adapters) not in (0, tuned_blocks):
            raise ValueError(
                f"VolumeEncoder: {len(adapters)} 'adapters' for {tuned_blocks} tuned blocks"
            )
        self.encoder = encoder
        self.adapters = adapters
        self.first_tuned = encoder.run_blocks - tuned_blocks

    @property
    def shared_blocks(self) -> int:
        """Number of first blocks that read each slice alone: all of them without inter-slice modules."""
        return self.first_tuned if len(self.adapters) else self.encoder.run_blocks

    def forward(self, images: Tensor, *, depth: int) -> list[Tensor]:
        """Encode all slices of all volumes.

        Args:
            images: (B * D, K * C, H', W'), sides multiples of the encoder's patch.
            depth: D.

        Returns:
            One (B, E, D, h, w) per tap.
        """
        return self.across_slices(self.each_slice(images), depth=depth)

    def each_slice(self, images: Tensor) -> SliceTokens:
        """Embed images and run the shared blocks: the part that is the same in every window.

        Args:
            images: (N, K * C, H', W'), sides multiples of the encoder's patch.
        """
        height, width = images.shape[-2:]
        with encoder_precision(images.device), self._gradients(0):
            tokens, rope = self.encoder.embed(images)
        tokens, taps = self._run(
            tokens, range(self.shared_blocks), rope=rope, size=(height, width), depth=1
        )
        return SliceTokens(tokens=tokens, taps=tuple(taps), rope=rope, image_size=(height, width))

    def across_slices(self, slices: SliceTokens, *, depth: int) -> list[Tensor]:
        """Run the other blocks on whole windows.

        Args:
            slices: of B * D slices, all slices of a window one after the other.
            depth: D.

        Returns:
            One (B, E, D, h, w) per tap, those of `slices` first.
        """
        blocks = range(self.shared_blocks, self.encoder.run_blocks)
        _, taps = self._run(
            slices.tokens, blocks, rope=slices.rope, size=slices.image_size, depth=depth
        )
        return [unstack_slices(tap, depth=depth) for tap in (*slices.taps, *taps)]

    def block(
        self, number: int, tokens: Tensor, rope: Tensor | None, depth: int, grid: tuple[int, int]
    ) -> Tensor:
        """One block, with its inter-slice module between attention and MLP if it has one.

        (B * D, P + h * w, E) -> the same.
        """
        tokens = self.encoder.attention_half(number, tokens, rope)
        if number >= self.shared_blocks:
            adapter = self.adapters[number - self.first_tuned]
            tokens = tokens + adapter(tokens, depth=depth, grid=grid)
        return self.encoder.mlp_half(number, tokens)

    def _run(
        self,
        tokens: Tensor,
        blocks: range,
        *,
        rope: Tensor | None,
        size: tuple[int, int],
        depth: int,
    ) -> tuple[Tensor, list[Tensor]]:
        """Run some blocks: the tokens after them, and the maps of the taps among them."""
        encoder = self.encoder
        grid = (size[0] // encoder.stride, size[1] // encoder.stride)
        taps = []
        for number in blocks:
            with encoder_precision(tokens.device), self._gradients(number):
                tokens = encoder.checkpointed(self.block, number, tokens, rope, depth, grid)
                if number in encoder.taps:
                    taps.append(encoder.to_map(tokens, *size))
        return tokens, taps

    def _gradients(self, number: int) -> torch.set_grad_enabled:
        """No gradients in blocks before the tuned ones while the encoder is frozen (stage II)."""
        learns = number >= self.first_tuned or not self.encoder.frozen
        return torch.set_grad_enabled(torch.is_grad_enabled() and learns)
