"""The two stages as nnU-Net's loop sees them: a batch in, a loss or full-size logits out."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from dinomed3d.lifting import stack_slices
from dinomed3d.networks import DinoMed3D
from dinomed3d.training.recipe import Recipe
from dinomed3d.training.slices import slice_batch

Loss = Callable[..., Tensor]


def proxy_loss(
    network: DinoMed3D,
    volume: Tensor,
    target: Tensor,
    shown: Tensor,
    *,
    recipe: Recipe,
    loss: Loss,
) -> Tensor:
    """Stage I's loss on slices drawn from a batch.

    Args:
        network: whose encoder and proxy head learn.
        volume: (B, C, D, H, W) or (B, C, H, W).
        target: the same with R channels, at full size.
        shown: (B, D, H, W) or (B, H, W), where there is foreground.
        recipe: how many slices, and how many of them with foreground.
        loss: of logits (N, classes, H, W) against (N, R, H, W).
    """
    token = network.spec.voxels_per_token
    tokens = -(-volume.shape[-2] // token) * -(-volume.shape[-1] // token)
    stacks, truth = slice_batch(
        network.image(volume),
        target,
        shown,
        slices=network.spec.slices,
        count=recipe.slices_per_step(tokens),
        foreground_share=recipe.foreground_share,
    )
    return loss(network.stage_one()(stacks).float(), truth)


class FullSizeLogits(nn.Module):
    """The running stage's logits for whole patches, in float32: for nnU-Net's online validation."""

    def __init__(self, network: DinoMed3D, *, stage: int, heads: int | None) -> None:
        """Wrap a network.

        Args:
            network: in either stage.
            stage: 1 or 2.
            heads: sizes that deep supervision asks for, finest first; None without it.
        """
        super().__init__()
        self.network = network
        self.stage = stage
        self.heads = heads

    def forward(self, volume: Tensor) -> Tensor | list[Tensor]:
        """(B, C, D, H, W) or (B, C, H, W) -> logits at in-plane strides 1, 2, 4, ..., or the finest."""
        if self.stage == 2:
            logits = self.network(volume)
            return logits.float() if self.heads is None else [x.float() for x in logits]
        flat = volume.ndim == 4
        volume = volume.unsqueeze(2) if flat else volume
        depth = volume.shape[2]
        stacks = stack_slices(self.network.image(volume), slices=self.network.spec.slices)
        slices = self.network.stage_one()(stacks).float()
        outputs = []
        for head in range(self.heads or 1):
            size = [-(-side // 2**head) for side in slices.shape[-2:]]
            small = F.interpolate(slices, size, mode="nearest-exact") if head else slices
            outputs.append(small if flat else small.unflatten(0, (-1, depth)).transpose(1, 2))
        return outputs[0] if self.heads is None else outputs
