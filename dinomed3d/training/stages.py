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


def begin_stage(network: DinoMed3D, recipe: Recipe, *, stage: int, supervised: bool) -> None:
    """Say what learns, and how the encoder spends its memory.

    Args:
        network: whose parameters and encoder are told.
        recipe: whether activations are kept or computed again.
        stage: 1 or 2.
        supervised: whether stage II's loss sees all levels, or the finest alone.
    """
    # the stage before leaves gradients of what no longer learns, which nothing else would free
    network.zero_grad(set_to_none=True)
    network.begin_stage(stage)
    if not supervised:
        network.decoder.seg_layers[1:].requires_grad_(False)  # nothing comes of them
    if network.encoder is not None:
        network.encoder.encoder.checkpointing = recipe.activation_checkpointing


def proxy_loss(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    target: Tensor,
    chosen: Tensor,
    *,
    slices: int,
    loss: Loss,
) -> Tensor:
    """Stage I's loss on slices drawn from a batch.

    Args:
        network: stage I's, of slices with their neighbours.
        image: (B, C, D, H, W) or (B, C, H, W).
        target: the same with R channels, at full size.
        chosen: (N,) slices, as `draw_slices` numbers them.
        slices: neighbouring ones in one embedding, K.
        loss: of logits (N, classes, H, W) against (N, R, H, W).
    """
    stacks, truth = slice_batch(image, target, chosen, slices=slices)
    return loss(network(stacks).float(), truth)


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
