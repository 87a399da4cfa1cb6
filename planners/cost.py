"""What a network costs, counted from its description: parameters, arithmetic, memory of each part.

No module is built. Memory is counted as PyTorch keeps it in mixed precision: activations that the
backward pass needs in 2 bytes, the transformer's residual stream and the losses in 4, weights with
their gradients and AdamW's two moments in 4 each, and the 2-byte copies of weights that autocast makes.
Left out: what libraries take besides (CUDA context, cuDNN workspaces, the allocator's gaps).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dinomed3d.networks import NetworkSpec
from planners import layer_costs
from planners.geometry import Geometry
from planners.layer_costs import FULL, HALF, PartCost

ENCODER = ("embedding", "encoder", "adapters")  # parts that the backward pass comes to last


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """One training step."""

    parts: Mapping[str, PartCost]
    """By the names of the figure; "loss" last."""
    inputs: float
    """Bytes of the batch and its target."""
    lifting: float
    """Bytes that come and go at the end of the encoder: enlarged slices, its last block or its taps."""
    passing: float
    """Bytes that come and go about the end of the forward pass, beside what is saved."""
    block: float
    """Bytes that come and go while a block of the encoder is passed backwards."""
    reentry: float
    """Gradients with which the backward pass comes to the encoder, bytes."""
    resident: int
    """Parameters that are in memory, also those the step does not touch."""

    @property
    def parameters(self) -> int:
        """Of all parts that take part."""
        return sum(part.parameters for part in self.parts.values())

    @property
    def trained(self) -> int:
        """Parameters that learn."""
        return sum(part.trained for part in self.parts.values())

    @property
    def saved(self) -> float:
        """Bytes kept for the backward pass by all parts."""
        return sum(part.saved for part in self.parts.values())

    @property
    def flops(self) -> float:
        """Forward and backward."""
        return sum(part.flops + part.backward_flops for part in self.parts.values())

    @property
    def state(self) -> float:
        """Bytes of weights, of AdamW's moments, and of the half-precision copies."""
        copies = sum(part.copies for part in self.parts.values())
        return FULL * self.resident + 2 * FULL * self.trained + copies

    @property
    def peak(self) -> float:
        """Bytes at the fullest moment.

        It is one of four. While the encoder ends its forward pass its images are still there. When
        the backward pass begins everything is saved and there is no gradient yet. When it comes to
        the encoder the other parts have nothing left but gradients. At its end there are all
        gradients; on the way there they grow about as evenly as the saved goes.
        """
        inside = [self.parts[name] for name in ENCODER if name in self.parts]
        kept = sum(part.saved for part in inside)
        outside = FULL * (self.trained - sum(part.trained for part in inside))
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
    """A step of stage II: encoder frozen but for its updates and adapters, everything else learns.

    Args:
        spec: the network.
        patch: (D, H, W) or (H, W), voxels.
        batch: patches.
        channels: of the input, an earlier stage's segmentation included.
        classes: channels of the logits.
        checkpointing: blocks of the encoder are computed again in the backward pass.
    """
    g = Geometry.of(spec, patch, batch, channels, classes)
    gate = len(spec.detail_widths) - 1
    has_encoder, has_detail = "encoder" in spec.parts, "detail" in spec.parts
    skips = list(spec.detail_widths) if has_detail else [0] * (gate + 1)
    parts: dict[str, PartCost] = {}
    if has_encoder:
        parts["embedding"] = layer_costs.embedding(g, trained=False)
        parts["encoder"] = layer_costs.encoder(g, tuned=False, checkpointing=checkpointing)
        if "adapters" in spec.parts:
            parts["adapters"] = layer_costs.adapters(g, checkpointing=checkpointing)
        parts["neck"] = layer_costs.neck(g, gate)
        skips += [spec.pyramid_width] * (spec.levels - gate - 1)
        if has_detail:
            parts["fusion"] = layer_costs.fusion(g, gate)
        else:
            skips[gate] = spec.pyramid_width
    if has_detail:
        parts["detail"] = layer_costs.detail(g, channels)
    widths = [*spec.detail_widths, *[spec.pyramid_width] * spec.levels][: len(skips)]
    heads = min(spec.supervised_levels, len(skips) - 1)
    parts["decoder"] = layer_costs.decoder(g, skips, widths, heads)
    supervised = sum(g.voxels[:heads])
    parts["loss"] = layer_costs.loss(classes, supervised)
    proxy = (g.size.width + 1) * classes if has_encoder else 0
    # the fullest moment is either in the loss, or in the decoder's last step once the loss is done
    in_loss = FULL * classes * 2 * g.voxels[0]
    in_step = HALF * 3 * widths[0] * g.voxels[0] - parts["loss"].saved
    block = layer_costs.block_passing(g, tuned=False, checkpointing=checkpointing) * has_encoder
    taps = FULL * len(g.taps) * g.size.width * g.slices * g.patches * has_encoder
    return StepCost(
        parts=parts,
        inputs=FULL * channels * g.voxels[0] + 2 * supervised,
        lifting=FULL * g.enlarged * has_encoder + 2 * taps,  # the taps, and together
        passing=max(in_loss, in_step),
        block=block,
        reentry=taps * (block > 0),
        resident=sum(part.parameters for part in parts.values()) + proxy,
    )


def stage_one(
    spec: NetworkSpec,
    patch: Sequence[int],
    *,
    slices: int,
    channels: int,
    classes: int,
    resident: int,
    batch: int = 0,
    checkpointing: bool = False,
) -> StepCost:
    """A step of stage I: the encoder and its linear head learn, on slices.

    Args:
        spec: the network.
        patch: (D, H, W) or (H, W), voxels.
        slices: in one step.
        channels: of the input.
        classes: channels of the logits.
        resident: parameters of the whole network, which is there too.
        batch: patches that the slices are drawn from, which stay in memory meanwhile.
        checkpointing: as for `stage_two`.
    """
    g = Geometry.of(spec, patch[-2:], slices, channels, classes)
    tokens = g.slices * g.patches
    head = PartCost()
    head.linear(g.size.width, classes, tokens)
    head.saved = g.size.width * (FULL * g.slices * g.tokens + HALF * tokens)
    parts = {
        "embedding": layer_costs.embedding(g, trained=True),
        "encoder": layer_costs.encoder(g, tuned=True, checkpointing=checkpointing),
        "head": head,
        "loss": layer_costs.loss(classes, g.voxels[0]),
    }
    # autocast's copies of all blocks' weights, which only the forward pass keeps with checkpointing
    matrices = HALF * sum(i * o for i, o in g.size.block_linears) * g.taps[-1] * checkpointing
    branches = 2 if g.size.gated else 1
    running = 2 * FULL * g.size.width + HALF * (g.size.width + (branches + 1) * g.size.hidden)
    return StepCost(
        parts=parts,
        inputs=(FULL * spec.slices * g.channels + 2) * g.voxels[0]
        + (FULL * channels + 2) * batch * math.prod(patch),
        lifting=FULL * g.enlarged + g.slices * g.tokens * running + matrices,
        passing=FULL * classes * 2 * g.voxels[0],
        block=layer_costs.block_passing(g, tuned=True, checkpointing=checkpointing),
        reentry=0.0,
        resident=resident,
    )


def prediction(spec: NetworkSpec, patch: Sequence[int], *, channels: int, classes: int) -> float:
    """Bytes at the fullest moment while one patch is predicted, weights included.

    What the host keeps of the whole volume (nnU-Net sums logits of all windows) comes on top.
    """
    g = Geometry.of(spec, patch, 1, channels, classes)
    step = stage_two(spec, patch, batch=1, channels=channels, classes=classes)
    weights = FULL * step.resident
    volume = FULL * channels * g.voxels[0]
    e, h, n, v = g.size.width, g.size.hidden, g.slices * g.tokens, g.voxels
    moments = []
    held = 0.0  # what waits for the decoder
    w = spec.pyramid_width
    gate = len(spec.detail_widths) - 1
    if "encoder" in spec.parts:
        branches = 2 if g.size.gated else 1
        lora = 3 if "lora" in spec.parts else 2  # the layer's own output, its update, their sum
        block = n * (10 * e + HALF * h * (lora + branches - 1))
        taps = FULL * n * e * len(g.taps)
        moments.append(FULL * g.enlarged + max(HALF * g.enlarged, block) + taps)
        moments.append(
            FULL * g.enlarged + taps * 2.5
        )  # the taps, and together, and in half precision
        held += HALF * w * sum(v[gate:])
    if "detail" in spec.parts:
        held += HALF * sum(d * x for d, x in zip(spec.detail_widths, v[: gate + 1], strict=True))
        if "encoder" in spec.parts:
            held += HALF * spec.detail_widths[gate] * v[gate]
    skip = spec.detail_widths[0] if "detail" in spec.parts else 0
    first, below = [*spec.detail_widths, w][:2]
    last = HALF * (v[0] * (4 * first + skip) + below * v[1])
    moments.append(held + last)
    moments.append(held + HALF * (2 * first + g.classes) * v[0])
    return weights + volume + max(moments)
