"""Why a plan is as it is: one line per decision, for the plan and for the table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dinomed3d.lifting import default_taps
from dinomed3d.training.recipe import Recipe
from planners.budget import Budget
from planners.dataset_stats import Images
from planners.encoders import encoder_size
from planners.sizing import (
    BATCH_LEAST,
    BATCH_MOST,
    DEPTH_SEEN,
    ENCODER_CANDIDATES,
    SHARE_OF_DATASET,
    TOKENS_WANTED,
    Rules,
    Sizing,
    Trial,
    tokens_of,
)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One choice and its reason."""

    what: str
    value: str
    why: str


def decisions(
    images: Images, sizing: Sizing, memory_gib: float, forced: Mapping[str, Any]
) -> list[Decision]:
    """Every choice of a plan, in the order in which they were made."""
    rules = Rules(images, forced)
    rows = [
        _encoder(sizing, forced),
        _patch(images, sizing, rules),
        _batch(images, sizing, Budget(memory_gib=memory_gib)),
    ]
    if "encoder" in sizing.spec.parts:
        rows.insert(0, _token(images, sizing, rules))
        rows.append(_checkpointing(images, sizing))
        rows += _inside(images, sizing, rules)
    return rows + _around(sizing, rules)


def _inside(images: Images, sizing: Sizing, rules: Rules) -> list[Decision]:
    """What is put into the encoder."""
    spec, image_channels = sizing.spec, images.channels - images.cascade_channels
    why = "the pretrained kernel as it is: one colour each"
    if rules.flat:
        why = "there is no neighbour"
    elif "slices" in rules.forced:
        why = "asked for"
    elif image_channels > 1:
        why = f"the pretrained kernel's colours, each shared by {image_channels} channels"
    rows = [_row("neighbouring slices", f"K = {spec.slices}", why)]
    size = encoder_size(spec.encoder, spec.encoder_overrides)
    taps = spec.taps or default_taps(size.depth)
    rows.append(_row("taps", _list(taps), f"evenly spaced, of {size.depth} blocks"))
    if "adapters" in spec.parts:
        rows.append(_row("3D adapters", spec.adapter_width, "a sixth of the encoder's channels"))
    if "lora" in spec.parts:
        rows.append(_row("low-rank updates", spec.lora_rank, "rank of the released code"))
    return rows


def _around(sizing: Sizing, rules: Rules) -> list[Decision]:
    """What stands beside the encoder, and how both stages train."""
    spec, recipe = sizing.spec, Recipe()
    flat = [2**i for i, k in enumerate(spec.depth_kernels) if k == 1]
    why = (
        f"flat at in-plane strides {_list(flat)}: pixels there are small beside the slice distance"
    )
    if rules.flat:
        why = "single slices"
    elif not flat:
        why = "slices are close, so every level mixes them"
    rows = [_row("kernels in depth", _list(spec.depth_kernels), why)]
    if "detail" in spec.parts:
        why = "channels at in-plane strides 1, 2, ... where tokens cannot see"
        rows.append(_row("detail stream", _list(spec.detail_widths), why))
    one = sizing.stage_one is not None
    why = "as wide as stays small beside the encoder" if one else "there is no encoder beside it"
    rows.append(_row("decoder", f"{spec.levels} levels, {spec.pyramid_width} channels", why))
    why = "the finest, as in nnU-Net"
    rows.append(_row("deep supervision", f"{spec.supervised_levels} levels", why))
    if one:
        why = "of a batch's slices, as many as memory and time allow"
        rows.append(_row("stage I", f"{sizing.recipe['stage1_slices']} slices a step", why))
        why = "of the encoder; 5e-5 for ViT-S, less for wider ones"
        rows.append(_row("stage I's rate", f"{sizing.recipe['rate_encoder']:g}", why))
    rates = f"{recipe.rate_decoder:g}, {recipe.rate_adapters:g}"
    why = "decoder and adapters: what hangs in the pretrained encoder learns more slowly"
    rows.append(_row("stage II's rates", rates, why))
    first = f"{recipe.stage1_epochs} + " if one else ""
    lengths = f"{first}{recipe.stage2_epochs} x {recipe.iterations_per_epoch} steps"
    why = "half of nnU-Net's 1000 epochs" + ("; a tenth of them for the encoder" if one else "")
    return [*rows, _row("stage lengths", lengths, why)]


def _row(what: str, value: object, why: str) -> Decision:
    return Decision(what=what, value=str(value), why=why)


def _list(values: object) -> str:
    return ", ".join(str(v) for v in values)  # type: ignore[attr-defined]


def _by(sides: object) -> str:
    return " x ".join(str(v) for v in sides)  # type: ignore[attr-defined]


def _token(images: Images, sizing: Sizing, rules: Rules) -> Decision:
    side, tokens = sizing.spec.voxels_per_token, tokens_of(sizing.spec, sizing.patch)
    why = f"{tokens} tokens a slice, closest to {TOKENS_WANTED}"
    if "voxels_per_token" in rules.forced:
        why = f"asked for; {tokens} tokens a slice"
    elif side > rules.token:
        why = f"{tokens} tokens a slice; finer ones are too much for memory or time"
    elif side < rules.token:
        why = f"{tokens} tokens a slice, which is cropped"
    return _row("voxels per token", f"{side} x {side}", why)


def _encoder(sizing: Sizing, forced: Mapping[str, Any]) -> Decision:
    spec = sizing.spec
    if "encoder" not in spec.parts:
        return _row("encoder", "none", "left out by DINOMED3D_PARTS")
    changed = ", ".join(f"{k}={v}" for k, v in spec.encoder_overrides.items())
    value = f"{spec.encoder} ({changed})" if changed else spec.encoder
    if forced.keys() & {"encoder", "encoder_overrides"}:
        why = "asked for (DINOMED3D_ENCODER, or the weights at hand)"
    elif spec.encoder == ENCODER_CANDIDATES[0]:
        why = "the largest that is chosen without being asked for, and it fits"
    elif spec.encoder == ENCODER_CANDIDATES[-1]:
        why = "the next larger is too much for memory or time"
    else:
        why = "the largest that fits memory and time with enough of each volume"
    return _row("encoder", value, why)


def _patch(images: Images, sizing: Sizing, rules: Rules) -> Decision:
    *depth, height, width = sizing.patch
    cropped = height < images.shape[-2] or width < images.shape[-1]
    why = (
        f"slices of {_by(images.shape[-2:])} are cropped, memory is short"
        if cropped
        else "whole slices"
    )
    why += f", sides in steps of {sizing.spec.multiple}"
    if depth and not rules.flat:
        if depth[0] == images.shape[0]:
            why += "; all slices"
        elif images.context and depth[0] >= rules.context_slices:
            why += f"; of {images.shape[0]} slices an eighth, for context"
        elif depth[0] == DEPTH_SEEN:
            why += f"; of {images.shape[0]} slices as many as one can see through the network"
        else:
            why += f"; of {images.shape[0]} slices as many as memory and time allow"
    return _row("patch", _by(sizing.patch), why)


def _checkpointing(images: Images, sizing: Sizing) -> Decision:
    if not sizing.recipe["activation_checkpointing"]:
        return _row("checkpointing", "off", "all activations fit")
    without = Trial(spec=sizing.spec, patch=sizing.patch, checkpointing=False)
    steps = without.steps(images, sizing.batch)
    need = Budget.for_bytes(max(step.peak for step in steps))
    return _row(
        "checkpointing", "on", f"blocks are computed twice; else it would need {need:.1f} GiB"
    )


def _batch(images: Images, sizing: Sizing, budget: Budget) -> Decision:
    trial = Trial(
        spec=sizing.spec,
        patch=sizing.patch,
        checkpointing=sizing.recipe["activation_checkpointing"],
    )
    more = trial.stage_two(images, sizing.batch + 1)
    shown = SHARE_OF_DATASET * images.voxels / math.prod(sizing.patch)
    if sizing.batch == BATCH_LEAST and round(shown) <= BATCH_LEAST:
        why = "the least; a batch should show little of the whole dataset"
    elif more.peak > budget.memory:
        why = f"one more would need {Budget.for_bytes(more.peak):.1f} GiB"
    elif more.flops > budget.flops:
        why = "one more would make a step too slow"
    elif sizing.batch == BATCH_MOST:
        why = "more brings nothing that more steps would not"
    else:
        why = f"more would show over {SHARE_OF_DATASET:.0%} of all voxels in a step"
    return _row("batch", sizing.batch, why)
