"""The steps of both stages and predicting a patch: their components put together, and their temporary memory.

With `encoder_costs` and `cnn_costs` this module owns the formulas; tests compare them with the network itself, traced
on fake tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dinomed3d.networks import NetworkSpec
from planners.cost import cnn_costs, encoder_costs
from planners.cost.component_cost import FULL, HALF, ComponentCost
from planners.cost.geometry import Geometry
from planners.cost.step_cost import StepCost


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
        components["embedding"] = encoder_costs.embedding(g, trained=False)
        components["encoder"] = encoder_costs.encoder(
            g, learning=False, checkpointing=checkpointing
        )
        if "adapters" in spec.components:
            components["adapters"] = encoder_costs.adapters(g, checkpointing=checkpointing)
        components["neck"] = cnn_costs.neck(g)
        components["fusion"] = cnn_costs.fusion(g)
        proxy = (g.size.width + 1) * classes
        taps = FULL * len(g.taps) * g.size.width * g.slices * g.patches
        images = FULL * g.enlarged
        block = encoder_costs.block_passing(g, learning=False, checkpointing=checkpointing)
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
        lifting=images + max(2 * taps, encoder_costs.block_running(g) if images else 0.0),
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
        "embedding": encoder_costs.embedding(g, trained=True),
        "encoder": encoder_costs.encoder(g, learning=True, checkpointing=checkpointing),
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
        block=encoder_costs.block_passing(g, learning=True, checkpointing=checkpointing),
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
        block = encoder_costs.block_running(g)
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
