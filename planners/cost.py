"""Cost of a training step or prediction, computed from the network's spec without building it.

This module, `layer_costs` and `cnn_costs` own the formulas; tests compare them
with the network itself, traced on fake tensors. Memory is counted as PyTorch keeps it in mixed
precision: activations for the backward pass in 2 bytes, the transformer's residual stream and the losses
in 4, weights, gradients and AdamW's two moments in 4 each, and autocast's 2-byte copies of weights. Not
counted: memory of libraries (CUDA context, cuDNN workspaces, gaps of the allocator).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dinomed3d.networks import NetworkSpec
from planners import cnn_costs, layer_costs
from planners.geometry import Geometry
from planners.layer_costs import FULL, HALF, ComponentCost

ENCODER = ("embedding", "encoder", "adapters")  # the last components in the backward pass
CNN = ("detail", "decoder")  # nnU-Net's network


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Cost of one training step."""

    components: Mapping[str, ComponentCost]
    """Cost of each component, by its name in the figure; "loss" last."""
    inputs: float
    """Bytes of the batch and its target."""
    lifting: float
    """Temporary bytes at the end of the encoder: enlarged slices, and its last block or its taps."""
    passing: float
    """Temporary bytes at the end of the forward pass, in addition to saved activations."""
    block: float
    """Temporary bytes of the backward pass through one block of the encoder."""
    reentry: float
    """Bytes of the gradients with which the backward pass enters the encoder."""
    resident: int
    """Parameters in memory, including those that the step does not use."""

    def _total(self, field: str) -> Any:
        return sum(getattr(cost, field) for cost in self.components.values())

    @property
    def parameters(self) -> int:
        """Parameters of all components of the step."""
        return int(self._total("parameters"))

    @property
    def trained(self) -> int:
        """Parameters that learn."""
        return int(self._total("trained"))

    @property
    def saved(self) -> float:
        """Bytes of activations kept for the backward pass."""
        return float(self._total("saved"))

    @property
    def flops(self) -> float:
        """Operations of forward and backward pass."""
        return float(self._total("flops") + self._total("backward_flops"))

    @property
    def cnn_flops(self) -> float:
        """Operations of the CNN, nnU-Net's own network."""
        parts = [self.components[name] for name in CNN]
        return float(sum(part.flops + part.backward_flops for part in parts))

    @property
    def token_share(self) -> float:
        """Operations of stage II's step for the tokens (encoder, neck, fusion), as a share of the CNN's."""
        return self.flops / self.cnn_flops - 1

    @property
    def state(self) -> float:
        """Bytes of weights, AdamW's moments, and half-precision copies of weights."""
        return float(FULL * self.resident + 2 * FULL * self.trained + self._total("copies"))

    @property
    def peak(self) -> float:
        """Peak memory in bytes: the largest of four moments.

        At the end of the encoder's forward pass its images are still in memory. At the beginning of the
        backward pass all activations are saved and there is no gradient yet. When the backward pass
        enters the encoder, the other components have only gradients left. At its end there are all
        gradients; in between gradients grow about as evenly as saved activations are freed.
        """
        inside = [self.components[name] for name in ENCODER if name in self.components]
        kept = sum(cost.saved for cost in inside)
        outside = FULL * (self.trained - sum(cost.trained for cost in inside))
        moments = (
            kept + self.lifting,
            self.saved + self.passing,
            kept + outside + self.reentry + self.block,
            FULL * self.trained + self.block,
        )
        return self.state + self.inputs + max(moments)


def stage_two(
    spec: NetworkSpec,
    patch: Sequence[int],
    *,
    batch: int,
    channels: int,
    classes: int,
    checkpointing: bool = False,
) -> StepCost:
    """A step of stage II: low-rank updates, adapters and everything outside the encoder learn.

    Args:
        spec: the network.
        patch: (D, H, W) or (H, W), voxels.
        batch: number of patches.
        channels: of the input, including the previous configuration's segmentation (cascade).
        classes: channels of the logits.
        checkpointing: activation checkpointing of the encoder's tuned blocks.
    """
    g = Geometry.of(spec, patch, batch, channels, classes)
    components: dict[str, ComponentCost] = {}
    proxy, taps, images, block = 0, 0.0, 0.0, 0.0
    if "encoder" in spec.components:
        components["embedding"] = layer_costs.embedding(g, trained=False)
        components["encoder"] = layer_costs.encoder(g, learning=False, checkpointing=checkpointing)
        if "adapters" in spec.components:
            components["adapters"] = layer_costs.adapters(g, checkpointing=checkpointing)
        components["neck"] = cnn_costs.neck(g)
        components["fusion"] = cnn_costs.fusion(g)
        proxy = (g.size.width + 1) * classes
        taps = FULL * len(g.taps) * g.size.width * g.slices * g.patches
        images = FULL * g.enlarged
        block = layer_costs.block_passing(g, learning=False, checkpointing=checkpointing)
    components["detail"] = cnn_costs.detail(g, channels)
    components["decoder"] = cnn_costs.decoder(g)
    supervised = sum(g.voxels[: spec.deep_supervision_heads])
    components["loss"] = cnn_costs.loss(classes, supervised)
    # the peak is in the loss, or in the decoder's last step: after the loss, or before it, with the taps
    width, after = spec.cnn.widths[0], -components["loss"].saved
    in_loss = FULL * classes * 2 * g.voxels[0]
    in_step = after + HALF * 3 * width * g.voxels[0]
    forward = after + taps + HALF * width * g.voxels[0]
    return StepCost(
        components=components,
        inputs=FULL * channels * g.voxels[0] + 2 * supervised,
        lifting=images + max(2 * taps, layer_costs.block_running(g) if images else 0.0),
        passing=max(in_loss, in_step, forward),
        block=block,
        reentry=taps * (block > 0),
        resident=sum(cost.parameters for cost in components.values()) + proxy,
    )


def stage_one(
    spec: NetworkSpec,
    patch: Sequence[int],
    *,
    slices: int,
    channels: int,
    classes: int,
    resident: int,
    checkpointing: bool = False,
) -> StepCost:
    """A step of stage I: the encoder and its linear head learn, on slices.

    Args:
        spec: the network.
        patch: (D, H, W) or (H, W), voxels.
        slices: number of slices in the step.
        channels: of the input.
        classes: channels of the logits.
        resident: parameters of the whole network, which is in memory too.
        checkpointing: as in `stage_two`, here of all blocks.
    """
    g = Geometry.of(spec, patch[-2:], slices, channels, classes)
    tokens, voxels = g.slices * g.patches, slices * math.prod(patch[-2:])
    head = ComponentCost()
    head.linear(g.size.width, classes, tokens)
    head.saved = g.size.width * (FULL * g.slices * g.tokens + HALF * tokens)
    components = {
        "embedding": layer_costs.embedding(g, trained=True),
        "encoder": layer_costs.encoder(g, learning=True, checkpointing=checkpointing),
        "head": head,
        "loss": cnn_costs.loss(classes, voxels),
    }
    # with checkpointing, only the forward pass holds autocast's copies of all blocks' weights
    matrices = HALF * sum(i * o for i, o in g.size.block_linears) * g.taps[-1] * checkpointing
    branches = 2 if g.size.gated else 1
    running = 2 * FULL * g.size.width + HALF * (g.size.width + (branches + 1) * g.size.hidden)
    return StepCost(
        components=components,
        inputs=(FULL * spec.slices * g.channels + 2) * voxels,
        lifting=FULL * g.enlarged + g.slices * g.tokens * running + matrices,
        passing=FULL * classes * 2 * voxels,
        block=layer_costs.block_passing(g, learning=True, checkpointing=checkpointing),
        reentry=0.0,
        resident=resident,
    )


def prediction(spec: NetworkSpec, patch: Sequence[int], *, channels: int, classes: int) -> float:
    """Peak memory of predicting one patch in bytes, weights included.

    Not counted are the logits of the whole volume, which nnU-Net accumulates.
    """
    g = Geometry.of(spec, patch, 1, channels, classes)
    step = stage_two(spec, patch, batch=1, channels=channels, classes=classes)
    weights = FULL * step.resident
    v, widths = g.voxels, spec.cnn.widths
    moments, taps = [], 0.0
    if "encoder" in spec.components:
        taps = FULL * g.slices * g.patches * g.size.width * len(g.taps)
        block = layer_costs.block_running(g)
        moments.append(FULL * g.enlarged + max(HALF * g.enlarged, block) + taps)
        # the taps, concatenated, and in half precision, and the levels before
        level = spec.token_levels[0] + 1
        before = HALF * sum(d * x for d, x in zip(widths[:level], v, strict=False))
        moments.append(before + taps * 2.5)
    # in the decoder's last step all skips, what it is made of, two maps of a convolution and its input
    skips = HALF * sum(d * x for d, x in zip(widths, v, strict=True))
    maps = 5 if spec.cnn.decoder_blocks[-1] > 1 else 4
    moments.append(skips + taps + HALF * (maps * widths[0] * v[0] + widths[1] * v[1]))
    return weights + FULL * channels * v[0] + max(moments)
