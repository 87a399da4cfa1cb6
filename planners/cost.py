"""Cost of a training step or prediction, computed from the network's spec without building it.

This module and `layer_costs` own the formulas of parameters, compute (FLOPs) and memory; tests compare them
with the network itself, traced on fake tensors. Memory is counted as PyTorch keeps it in mixed
precision: activations for the backward pass in 2 bytes, the transformer's residual stream and the losses
in 4, weights, gradients and AdamW's two moments in 4 each, and autocast's 2-byte copies of weights. Not
counted: memory of libraries (CUDA context, cuDNN workspaces, gaps of the allocator).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dinomed3d.networks import NetworkSpec
from planners import layer_costs
from planners.geometry import Geometry
from planners.layer_costs import FULL, HALF, ComponentCost

ENCODER = ("embedding", "encoder", "adapters")  # the last components in the backward pass


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
    """Temporary bytes at the end of the forward pass, besides saved activations."""
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
        checkpointing: activation checkpointing of the encoder's blocks.
    """
    g = Geometry.of(spec, patch, batch, channels, classes)
    gate = len(spec.detail_widths) - 1
    has_encoder, has_detail = "encoder" in spec.components, "detail" in spec.components
    components: dict[str, ComponentCost] = {}
    if has_encoder:
        components["embedding"] = layer_costs.embedding(g, trained=False)
        components["encoder"] = layer_costs.encoder(g, tuned=False, checkpointing=checkpointing)
        if "adapters" in spec.components:
            components["adapters"] = layer_costs.adapters(g, checkpointing=checkpointing)
        components["neck"] = layer_costs.neck(g, gate)
        if has_detail:
            components["fusion"] = layer_costs.fusion(g, gate)
    if has_detail:
        components["detail"] = layer_costs.detail(g, channels)
    components["decoder"] = layer_costs.decoder(g)
    supervised = sum(g.voxels[: spec.deep_supervision_heads])
    components["loss"] = layer_costs.loss(classes, supervised)
    proxy = (g.size.width + 1) * classes if has_encoder else 0
    # the peak is either in the loss, or in the decoder's last step after the loss
    in_loss = FULL * classes * 2 * g.voxels[0]
    in_step = HALF * 3 * spec.decoder_widths[0] * g.voxels[0] - components["loss"].saved
    block = layer_costs.block_passing(g, tuned=False, checkpointing=checkpointing) * has_encoder
    taps = FULL * len(g.taps) * g.size.width * g.slices * g.patches * has_encoder
    return StepCost(
        components=components,
        inputs=FULL * channels * g.voxels[0] + 2 * supervised,
        lifting=FULL * g.enlarged * has_encoder + 2 * taps,  # the taps, and concatenated
        passing=max(in_loss, in_step),
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
        checkpointing: as in `stage_two`.
    """
    g = Geometry.of(spec, patch[-2:], slices, channels, classes)
    tokens = g.slices * g.patches
    head = ComponentCost()
    head.linear(g.size.width, classes, tokens)
    head.saved = g.size.width * (FULL * g.slices * g.tokens + HALF * tokens)
    components = {
        "embedding": layer_costs.embedding(g, trained=True),
        "encoder": layer_costs.encoder(g, tuned=True, checkpointing=checkpointing),
        "head": head,
        "loss": layer_costs.loss(classes, g.voxels[0]),
    }
    # with checkpointing, only the forward pass holds autocast's copies of all blocks' weights
    matrices = HALF * sum(i * o for i, o in g.size.block_linears) * g.taps[-1] * checkpointing
    branches = 2 if g.size.gated else 1
    running = 2 * FULL * g.size.width + HALF * (g.size.width + (branches + 1) * g.size.hidden)
    return StepCost(
        components=components,
        inputs=(FULL * spec.slices * g.channels + 2) * g.voxels[0],
        lifting=FULL * g.enlarged + g.slices * g.tokens * running + matrices,
        passing=FULL * classes * 2 * g.voxels[0],
        block=layer_costs.block_passing(g, tuned=True, checkpointing=checkpointing),
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
    volume = FULL * channels * g.voxels[0]
    e, h, n, v = g.size.width, g.size.hidden, g.slices * g.tokens, g.voxels
    moments = []
    held = 0.0  # skips of the decoder
    w = spec.pyramid_width
    gate = len(spec.detail_widths) - 1
    if "encoder" in spec.components:
        branches = 2 if g.size.gated else 1
        lora = 3 if "lora" in spec.components else 2  # a layer's output, its update, their sum
        block = n * (10 * e + HALF * h * (lora + branches - 1))
        taps = FULL * n * e * len(g.taps)
        moments.append(FULL * g.enlarged + max(HALF * g.enlarged, block) + taps)
        # the taps, concatenated, and in half precision
        moments.append(FULL * g.enlarged + taps * 2.5)
        held += HALF * w * sum(v[gate:])
    if "detail" in spec.components:
        held += HALF * sum(d * x for d, x in zip(spec.detail_widths, v[: gate + 1], strict=True))
        if "encoder" in spec.components:
            held += HALF * spec.detail_widths[gate] * v[gate]
    skip = spec.detail_widths[0] if "detail" in spec.components else 0
    first, below = [*spec.detail_widths, w][:2]
    last = HALF * (v[0] * (4 * first + skip) + below * v[1])
    moments.append(held + last)
    moments.append(held + HALF * (2 * first + g.classes) * v[0])
    return weights + volume + max(moments)
