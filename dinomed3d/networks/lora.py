"""Low-rank updates of frozen linear layers (LoRA, Hu 2021, arXiv:2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinomed3d.lifting import DinoEncoder

TARGETS = ("qkv", "proj", "fc1", "fc1_g", "fc1_x", "fc2")
"""Names of a block's linear layers that get an update; the patch embedding gets none."""


class LoRALinear(nn.Module):
    """y = W x + b + (alpha / r) * up(down(x)); `up` starts at zero, and the layer unchanged.

    Source: Hu 2021, arXiv:2106.09685, section 4.1.
    """

    lora_scale: Tensor

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float) -> None:
        """Wrap a layer.

        Args:
            base: the layer; whether it learns is not changed here.
            rank: r >= 1.
            alpha: the update is scaled by alpha / r.
        """
        super().__init__()
        if rank < 1:
            raise ValueError(f"LoRALinear: 'rank' must be at least 1, got {rank}")
        self.base = base
        self.lora_down = nn.Parameter(torch.empty(rank, base.in_features))
        self.lora_up = nn.Parameter(torch.zeros(base.out_features, rank))
        self.register_buffer("lora_scale", torch.tensor(alpha / rank))  # for merging a checkpoint
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out).

        Without gradients the update is merged into the weight, which costs less than a pass over the
        activations; merging anew in every call leaves no copy that could be stale when training goes on.
        """
        if not torch.is_grad_enabled():
            return F.linear(x, self.merged_weight(), self.base.bias)
        rows = x.flatten(0, -2)
        y: Tensor = self.base(rows)
        down = F.linear(rows, self.lora_down)
        # in place: the backward pass of a linear layer does not read its output
        return y.addmm_(down, self.lora_up.T.to(y), alpha=self.scale).unflatten(0, x.shape[:-1])

    def merged_weight(self) -> Tensor:
        """(out, in): the weight of the linear layer that gives the same, in the parameters' precision."""
        with torch.autocast(self.lora_up.device.type, enabled=False):
            return torch.addmm(self.base.weight, self.lora_up, self.lora_down, alpha=self.scale)


def add_lora(encoder: DinoEncoder, *, blocks: Iterable[int], rank: int, alpha: float) -> None:
    """Give every attention and MLP layer of some blocks a low-rank update, in place.

    Args:
        encoder: whose layers are wrapped.
        blocks: their numbers, 0-based.
        rank: see LoRALinear.
        alpha: see LoRALinear.
    """
    for block in (encoder.vit.blocks[number] for number in blocks):
        for module in (block.attn, block.mlp):
            for name in TARGETS:
                layer = getattr(module, name, None)
                if isinstance(layer, nn.Linear):
                    setattr(module, name, LoRALinear(layer, rank=rank, alpha=alpha))
        if hasattr(block.attn, "qkv_bias_separate"):
            # timm's fused path reads qkv.weight without calling the layer; this one calls it.
            block.attn.qkv_bias_separate = True


def merge_lora(network: nn.Module) -> None:
    """Replace layers with an update by plain linear ones with the merged weight, in place.

    Args:
        network: that is not trained any more; its result stays the same.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoRALinear):
                with torch.no_grad():
                    child.base.weight.copy_(child.merged_weight())
                setattr(parent, name, child.base)
