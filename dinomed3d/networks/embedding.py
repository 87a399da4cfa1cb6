"""Multi-slice embedding: neighbouring slices enter the pretrained patch embedding as channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinomed3d.lifting import DinoEncoder, stack_slices


def colours_of(channels: Sequence[str]) -> tuple[int, int, int] | None:
    """Which colour of an RGB kernel each channel is, where these are red, green and blue in any order.

    Args:
        channels: names of the images' channels, in order, such as R, G, B.

    Returns:
        For each channel 0 (red), 1 or 2 (blue); None for other channels, such as three sequences of an MR scan.
    """
    names = [name.strip().lower() for name in channels]
    for colours in (("r", "g", "b"), ("red", "green", "blue")):
        if sorted(names) == sorted(colours):
            first, second, third = (colours.index(name) for name in names)
            return first, second, third
    return None


def inflate_kernel(
    kernel: Tensor, *, slices: int, modalities: int, colours: Sequence[int] | None = None
) -> Tensor:
    """Turn an RGB patch kernel into one for K slices of C modalities.

    Red, green and blue become the slices before, at and after the centre. For K = 3 and C = 1 the
    kernel is unchanged. Otherwise each colour is spread over the slices around its position, linearly
    and with weights that sum to one, and divided equally among the modalities: a constant volume gives
    the same tokens as before. Single slices whose channels are colours keep the kernel, each its own.

    Args:
        kernel: (E, 3, P, P).
        slices: K, odd.
        modalities: C.
        colours: of the modalities, as `colours_of` gives them.

    Returns:
        (E, K * C, P, P), channels as `stack_slices` orders them (slices outside, modalities inside).
    """
    if slices == 1 and colours is not None:
        return kernel[:, list(colours)]
    position = torch.linspace(0, 2, slices) if slices > 1 else torch.ones(1)
    reach = max(1.0, 2 / max(1, slices - 1))  # so that each colour reaches a slice if K < 3
    share = (1 - (position[:, None] - torch.arange(3)).abs() / reach).clamp(min=0)  # (K, 3)
    if slices == 1:
        share = torch.ones(1, 3)
    share = (share / share.sum(0, keepdim=True)).to(kernel)
    spread = torch.einsum("kc,ecpq->ekpq", share, kernel)
    return (spread / modalities).repeat_interleave(modalities, dim=1)


class MultiSliceEmbedding(nn.Module):
    """Volume in, one enlarged K * C channel image per slice out, ready for the inflated encoder."""

    def __init__(self, *, slices: int, modalities: int, voxels_per_token: int, patch: int) -> None:
        """Store the geometry.

        Args:
            slices: K, odd.
            modalities: C, channels of the volume.
            voxels_per_token: side of a token in voxels; divides the in-plane sizes.
            patch: side of a token in the encoder's pixels.
        """
        super().__init__()
        self.slices = slices
        self.modalities = modalities
        self.voxels_per_token = voxels_per_token
        self.patch = patch

    def inflate(self, encoder: DinoEncoder, *, colours: Sequence[int] | None = None) -> None:
        """Replace the encoder's RGB patch embedding by the inflated one (`inflate_kernel`), in place."""
        old = encoder.vit.patch_embed.proj
        new = nn.Conv2d(
            self.slices * self.modalities, old.out_channels, old.kernel_size, old.stride, bias=True
        )
        with torch.no_grad():
            new.weight.copy_(
                inflate_kernel(
                    old.weight, slices=self.slices, modalities=self.modalities, colours=colours
                )
            )
            assert new.bias is not None
            new.bias.copy_(old.bias)
        encoder.vit.patch_embed.proj = new
        encoder.in_channels = new.in_channels

    def forward(self, volume: Tensor, *, halo: tuple[int, int] = (0, 0)) -> Tensor:
        """(B, C, D, H, W) -> (B * D, K * C, H * p / t, W * p / t): p pixels for t voxels.

        Args:
            volume: with the slices of the halo.
            halo: as in `stack_slices`.
        """
        return self.enlarge(stack_slices(volume, slices=self.slices, halo=halo))

    def enlarge(self, stacks: Tensor) -> Tensor:
        """(N, K * C, H, W) -> (N, K * C, H * p / t, W * p / t), bilinearly."""
        if self.patch == self.voxels_per_token:
            return stacks
        height, width = (side // self.voxels_per_token * self.patch for side in stacks.shape[-2:])
        return F.interpolate(stacks, (height, width), mode="bilinear", align_corners=False)
