"""Logits of the two stages and their sizes, as nnU-Net's training loop expects them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinomed3d.lifting import stack_slices, unstack_slices
from dinomed3d.networks import DinoMed3D, NetworkSpec


def deep_supervision_scales(spec: NetworkSpec, patch_size: Sequence[int]) -> list[list[float]]:
    """Sizes of stage II's outputs as nnU-Net's data loader expects them, also where a side is odd.

    Args:
        spec: the network.
        patch_size: (D, H, W) or (H, W), voxels.

    Returns:
        For each head, finest first, the factor of each axis.
    """
    cells = [cell[-len(patch_size) :] for cell in spec.cnn.cells[: spec.deep_supervision_heads]]
    return [
        [-(-side // cell) / side for side, cell in zip(patch_size, level, strict=True)]
        for level in cells
    ]


class FullSizeLogits(nn.Module):
    """The current stage's logits of whole patches, in float32: for nnU-Net's online validation."""

    def __init__(
        self,
        network: DinoMed3D,
        *,
        stage: int,
        heads: int | None,
        halo: int = 0,
        slices_at_once: int | None = None,
    ) -> None:
        """Wrap a network.

        Args:
            network: the whole network.
            stage: 1 or 2.
            heads: number of deep-supervision heads; None without deep supervision.
            halo: slices at both ends of a volume that are read as neighbours alone.
            slices_at_once: of stage I, which segments slices: as many as fit into memory; None for all.
        """
        super().__init__()
        self.slices_at_once = slices_at_once
        self.network = network
        self.stage = stage
        self.heads = heads
        self.halo = (halo, halo)

    def forward(self, volume: Tensor) -> Tensor | list[Tensor]:
        """(B, C, D, H, W) or (B, C, H, W) -> logits at the CNN's strides, or the finest."""
        if self.stage == 2:
            logits = self.network(volume, halo=self.halo)
            return logits.float() if self.heads is None else [x.float() for x in logits]
        is_2d = volume.ndim == 4
        volume = volume.unsqueeze(2) if is_2d else volume
        image, depth = self.network.image(volume), volume.shape[2] - sum(self.halo)
        stacks = stack_slices(image, slices=self.network.spec.slices, halo=self.halo)
        proxy = self.network.stage_one()
        parts = stacks.split(self.slices_at_once or len(stacks))
        whole = unstack_slices(torch.cat([proxy(part).float() for part in parts]), depth=depth)
        outputs = []
        for cell in self.network.spec.cnn.cells[: self.heads or 1]:
            size = [-(-side // step) for side, step in zip(whole.shape[2:], cell, strict=True)]
            small = F.interpolate(whole, size, mode="nearest-exact")
            outputs.append(small.squeeze(2) if is_2d else small)
        return outputs[0] if self.heads is None else outputs
