"""The decisions of a plan with their reasons: one row each, for the plan file and its table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dinomed3d.lifting import default_taps
from dinomed3d.training.recipe import Recipe
from planners.budget import Budget
from planners.dataset_stats import DatasetStats
from planners.encoders import encoder_size
from planners.network_rules import DECODER_WIDTHS, TARGET_TOKENS, tokens_of
from planners.sizing import (
    ENCODER_CANDIDATES,
    MAX_BATCH,
    MAX_DATASET_SHARE,
    MIN_BATCH,
    RECEPTIVE_DEPTH,
    Search,
    Sizing,
    Trial,
)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One decision."""

    what: str
    """The setting."""
    value: str
    """Its value, as text."""
    why: str
    """The reason."""


def decisions(
    stats: DatasetStats, sizing: Sizing, memory_gib: float, forced: Mapping[str, Any]
) -> list[Decision]:
    """Every decision of a plan, in the order in which they were made."""
    search = Search(stats, forced)
    rows = [
        _encoder(sizing, forced),
        _patch(stats, sizing, search),
        _batch(stats, sizing, Budget(memory_gib=memory_gib)),
    ]
    if "encoder" in sizing.spec.components:
        rows.insert(0, _token(sizing, search))
        rows.append(_checkpointing(stats, sizing))
        rows += _encoder_modules(stats, sizing, search)
    return rows + _other_modules(sizing, search) + _training(sizing)


def _row(what: str, value: object, why: str) -> Decision:
    return Decision(what=what, value=str(value), why=why)


def _joined(values: Iterable[object], separator: str = ", ") -> str:
    return separator.join(map(str, values))


def _token(sizing: Sizing, search: Search) -> Decision:
    side, tokens = sizing.spec.voxels_per_token, tokens_of(sizing.spec, sizing.patch)
    why = f"{tokens} tokens per slice, closest to {TARGET_TOKENS}"
    if "voxels_per_token" in search.forced:
        why = f"set by the user; {tokens} tokens per slice"
    elif side > search.token:
        why = f"{tokens} tokens per slice; finer tokens exceed memory or time"
    elif side < search.token:
        why = f"{tokens} tokens per slice, which is cropped"
    return _row("voxels per token", f"{side} x {side}", why)


def _encoder(sizing: Sizing, forced: Mapping[str, Any]) -> Decision:
    spec = sizing.spec
    if "encoder" not in spec.components:
        return _row("encoder", "none", "left out by DINOMED3D_COMPONENTS")
    changed = ", ".join(f"{k}={v}" for k, v in spec.encoder_overrides.items())
    value = f"{spec.encoder} ({changed})" if changed else spec.encoder
    if forced.keys() & {"encoder", "encoder_overrides"}:
        why = "set by the user (DINOMED3D_ENCODER, or the weights given)"
    elif spec.encoder == ENCODER_CANDIDATES[0]:
        why = "the largest candidate, and it fits"
    elif spec.encoder == ENCODER_CANDIDATES[-1]:
        why = "the next larger one exceeds memory or time"
    else:
        why = "the largest that fits memory and time with enough slices of each volume"
    return _row("encoder", value, why)


def _patch(stats: DatasetStats, sizing: Sizing, search: Search) -> Decision:
    *depth, height, width = sizing.patch
    cropped = height < stats.shape[-2] or width < stats.shape[-1]
    why = (
        f"slices of {_joined(stats.shape[-2:], ' x ')} are cropped because memory is short"
        if cropped
        else "whole slices"
    )
    why += f", sides rounded up to multiples of {sizing.spec.multiple}"
    if depth and not search.single_slice:
        if depth[0] == stats.shape[0]:
            why += "; all slices"
        elif stats.context and depth[0] >= search.context_slices:
            why += f"; an eighth of {stats.shape[0]} slices, for context"
        elif depth[0] == RECEPTIVE_DEPTH:
            why += f"; of {stats.shape[0]} slices as many as the network's reach"
        else:
            why += f"; of {stats.shape[0]} slices as many as memory and time allow"
    return _row("patch", _joined(sizing.patch, " x "), why)


def _batch(stats: DatasetStats, sizing: Sizing, budget: Budget) -> Decision:
    trial = Trial(
        spec=sizing.spec,
        patch=sizing.patch,
        checkpointing=sizing.recipe["activation_checkpointing"],
    )
    more = trial.stage_two(stats, sizing.batch + 1)
    share = MAX_DATASET_SHARE * stats.voxels / math.prod(sizing.patch)
    if sizing.batch == MIN_BATCH and round(share) <= MIN_BATCH:
        why = "the minimum; a batch should hold little of the dataset"
    elif more.peak > budget.memory:
        why = f"one more would need {Budget.for_bytes(more.peak):.1f} GiB"
    elif more.flops > budget.flops:
        why = "one more would make a step too slow"
    elif sizing.batch == MAX_BATCH:
        why = "the maximum; more steps help more than larger batches"
    else:
        why = f"more would hold over {MAX_DATASET_SHARE:.0%} of all voxels"
    return _row("batch", sizing.batch, why)


def _checkpointing(stats: DatasetStats, sizing: Sizing) -> Decision:
    if not sizing.recipe["activation_checkpointing"]:
        return _row("checkpointing", "off", "all activations fit")
    without = Trial(spec=sizing.spec, patch=sizing.patch, checkpointing=False)
    steps = without.steps(stats, sizing.batch)
    need = Budget.for_bytes(max(step.peak for step in steps))
    return _row("checkpointing", "on", f"blocks are recomputed; without it {need:.1f} GiB")


def _encoder_modules(stats: DatasetStats, sizing: Sizing, search: Search) -> list[Decision]:
    """Multi-slice embedding, taps, adapters and low-rank updates."""
    spec, image_channels = sizing.spec, stats.channels - stats.cascade_channels
    why = "the pretrained kernel unchanged: one colour per slice"
    if search.single_slice:
        why = "there are no neighbours"
    elif "slices" in search.forced:
        why = "set by the user"
    elif image_channels > 1:
        why = f"the pretrained kernel's colours, each divided among {image_channels} channels"
    rows = [_row("slices per embedding", f"K = {spec.slices}", why)]
    depth = encoder_size(spec.encoder, spec.encoder_overrides).depth
    taps = spec.taps or default_taps(depth)
    rows.append(_row("taps", _joined(taps), f"evenly spaced over {depth} blocks"))
    run = taps[-1] + 1
    if not {"lora", "adapters"}.isdisjoint(spec.components):
        why = "set by the user" if spec.tuned_blocks else "the last third; those before stay frozen"
        rows.append(_row("tuned blocks", f"{spec.tuned_of(run)} of {run}", why))
    if "adapters" in spec.components:
        name = "3D adapters" if spec.inter_slice == "adapters" else "attention along depth"
        rows.append(_row(name, spec.adapter_width, "a sixth of the encoder's channels"))
    if "lora" in spec.components:
        rows.append(_row("low-rank updates", spec.lora_rank, "rank in DINO-Med3D's released code"))
    return rows


def _other_modules(sizing: Sizing, search: Search) -> list[Decision]:
    """Kernels, detail stream and decoder."""
    spec = sizing.spec
    strides = [2**i for i, k in enumerate(spec.depth_kernels) if k == 1]
    why = f"1 at in-plane strides {_joined(strides)}, whose pixels are small against the slice distance"
    if search.single_slice:
        why = "single slices"
    elif not strides:
        why = "slices are close, so every level mixes them"
    rows = [_row("depth kernels", _joined(spec.depth_kernels), why)]
    if "detail" in spec.components:
        why = "channels at in-plane strides 1, 2, ..., finer than tokens"
        rows.append(_row("detail stream", _joined(spec.detail_widths), why))
    why = "the widest whose FLOPs are at most a third of the encoder's"
    if spec.pyramid_width == DECODER_WIDTHS[-1]:
        why = "the narrowest; wider ones exceed a third of the encoder's FLOPs"
    if sizing.stage_one is None:
        why = "default, without an encoder"
    rows.append(_row("decoder", f"{spec.levels} levels, {spec.pyramid_width} channels", why))
    heads = f"{spec.deep_supervision_heads} levels"
    return [*rows, _row("deep supervision", heads, "the finest, as in nnU-Net")]


def _training(sizing: Sizing) -> list[Decision]:
    """Stage lengths and learning rates."""
    recipe, rows = Recipe(), []
    first, why = "", "half of nnU-Net's 1000 epochs"
    if sizing.stage_one is not None:
        reason = "each of another case; as many as memory and time allow, at most those of a batch"
        rows.append(_row("stage I", f"{sizing.recipe['stage1_slices']} slices per step", reason))
        reason = "of the encoder; 5e-5 for ViT-S, less for wider ones"
        rows.append(_row("stage I's learning rate", f"{sizing.recipe['rate_encoder']:g}", reason))
        first = f"{recipe.stage1_epochs} + "
        why += "; a tenth of them for the encoder"
    rates = f"{recipe.rate_decoder:g}, {recipe.rate_adapters:g}"
    reason = "decoder and adapters: modules inside the pretrained encoder learn more slowly"
    lengths = f"{first}{recipe.stage2_epochs} x {recipe.iterations_per_epoch} steps"
    return [
        *rows,
        _row("stage II's learning rates", rates, reason),
        _row("stage lengths", lengths, why),
    ]
