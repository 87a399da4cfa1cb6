"""The decisions of a plan with their reasons: one row each, for the plan file and its table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dinomed3d.training.settings.recipe import Recipe
from planners.budget import Budget
from planners.cost.encoder_sizes import encoder_size
from planners.cost.geometry import Geometry, tokens_of
from planners.sizing import DatasetStats, Sizing
from planners.sizing.search import ENCODER_CANDIDATES, MIN_TOKENS, TOKEN_SHARE

TERA, GIB = 1e12, 2**30


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
    rows = _cnn(sizing, memory_gib)
    if "encoder" in sizing.spec.components:
        rows += [
            _tokens(sizing, forced),
            _encoder(sizing, forced),
            _checkpointing(stats, sizing),
            *_encoder_modules(stats, sizing, forced),
        ]
    else:
        rows.append(_row("encoder", "none", "left out by DINOMED3D_COMPONENTS"))
    return [*rows, _step(stats, sizing, memory_gib), *_training(sizing)]


def _row(what: str, value: object, why: str) -> Decision:
    return Decision(what=what, value=str(value), why=why)


def _joined(values: Iterable[object], separator: str = ", ") -> str:
    return separator.join(map(str, values))


def _cnn(sizing: Sizing, memory_gib: float) -> list[Decision]:
    """Patch, batch and network of nnU-Net's rule."""
    cnn, share = sizing.spec.cnn, sizing.cnn_share
    why = f"nnU-Net's rule for {memory_gib:g} GiB"
    if share < 1:
        why = f"nnU-Net's rule for {share:.0%} of {memory_gib:g} GiB, so that the whole step fits"
    kind = "residual" if cnn.residual else "plain"
    cells = _joined(cnn.cells[-1], " x ")
    return [
        _row("patch", _joined(sizing.trial.patch, " x "), why),
        _row("batch", sizing.trial.batch, "by the same rule"),
        _row(
            "CNN",
            f"{kind}, {cnn.levels} levels",
            f"by the same rule: {cnn.widths[0]} to {cnn.widths[-1]} channels, the coarsest cells are {cells} voxels; "
            "detail stream and decoder",
        ),
    ]


def _tokens(sizing: Sizing, forced: Mapping[str, Any]) -> Decision:
    """Size of a token, and which slices are encoded."""
    spec, patch = sizing.spec, sizing.trial.patch
    side, step = spec.voxels_per_token, spec.slices_per_token
    share = sizing.stage_two.token_share
    cost = f"encoder, neck and fusion add {share:.0%} to the CNN's operations"
    tokens = tokens_of(spec, patch)
    names = [n for n in ("VOXELS_PER_TOKEN", "SLICES_PER_TOKEN") if n.lower() in forced]
    if names:
        why = f"set by the user ({_joined(f'DINOMED3D_{name}' for name in names)}); {cost}"
    elif share > TOKEN_SHARE:
        why = f"the cheapest with {MIN_TOKENS} or more per slice, but {cost}"
    elif sizing.trial.checkpointing:
        why = f"the finest within {TOKEN_SHARE:.0%} and the memory; {cost}"
    else:
        why = f"the finest within {TOKEN_SHARE:.0%}; {cost}"
    slices = "" if len(patch) == 2 else ", each slice" if step == 1 else f", 1 of {step} slices"
    return _row("tokens", f"{side} x {side} voxels{slices}", f"{tokens} per slice; {why}")


def _encoder(sizing: Sizing, forced: Mapping[str, Any]) -> Decision:
    spec = sizing.spec
    changed = ", ".join(f"{k}={v}" for k, v in spec.encoder_overrides.items())
    value = f"{spec.encoder} ({changed})" if changed else spec.encoder
    if forced.keys() & {"encoder", "encoder_overrides"}:
        why = "set by the user (DINOMED3D_ENCODER, or the weights given)"
    elif spec.encoder == ENCODER_CANDIDATES[0]:
        why = "the largest candidate, and it fits"
    else:
        why = f"the next larger one adds over {TOKEN_SHARE:.0%} or exceeds the memory"
    return _row("encoder", value, why)


def _checkpointing(stats: DatasetStats, sizing: Sizing) -> Decision:
    if not sizing.trial.checkpointing:
        return _row("checkpointing", "off", "all activations fit")
    need = Budget.for_bytes(replace(sizing.trial, checkpointing=False).peak(stats))
    return _row(
        "checkpointing", "on", f"tuned blocks are computed again; without it {need:.1f} GiB"
    )


def _encoder_modules(
    stats: DatasetStats, sizing: Sizing, forced: Mapping[str, Any]
) -> list[Decision]:
    """Multi-slice embedding, taps, tuned blocks with adapters and low-rank updates, levels with tokens."""
    spec, image_channels = sizing.spec, stats.channels - stats.cascade_channels
    why = "the pretrained kernel unchanged: one colour per slice"
    if spec.slices == 1 and "slices" not in forced:
        why = "there are no neighbours"
    elif "slices" in forced:
        why = "set by the user (DINOMED3D_SLICES)"
    elif image_channels > 1:
        why = f"the pretrained kernel's colours, each divided among {image_channels} channels"
    rows = [_row("slices per embedding", f"K = {spec.slices}", why)]
    g = Geometry.of(spec, sizing.trial.patch, 1, stats.channels, stats.classes)
    depth = encoder_size(spec.encoder, spec.encoder_overrides).depth
    why = f"at half and three quarters of {depth} blocks; those after the last are not run"
    rows.append(_row("taps", _joined(g.taps), why))
    if g.tuned:
        why = "set by the user" if spec.tuned_blocks else "the last third that are run"
        why += "; those before stay frozen and keep nothing for the backward pass"
        rows.append(_row("tuned blocks", f"{g.tuned} of {g.blocks}", why))
    if "adapters" in spec.components:
        name = "3D adapters" if spec.inter_slice == "adapters" else "attention along depth"
        rows.append(_row(name, spec.adapter_width, "a sixth of the encoder's channels"))
    if "lora" in spec.components:
        rows.append(_row("low-rank updates", spec.lora_rank, "rank in DINO-Med3D's released code"))
    strides = [max(spec.cnn.cells[level][1:]) for level in spec.token_levels]
    why = f"in-plane strides {_joined(strides)}, {spec.token_width} channels each"
    return [*rows, _row("tokens enter", f"levels {_joined(spec.token_levels)}", why)]


def _step(stats: DatasetStats, sizing: Sizing, memory_gib: float) -> Decision:
    """Cost of a step of stage II as a whole."""
    two, budget = sizing.stage_two, Budget(memory_gib=memory_gib)
    voxels = sizing.trial.batch * math.prod(sizing.trial.patch) / 1e6
    return _row(
        "a step",
        f"{two.flops / TERA:.2f} TFLOP, {two.peak / GIB:.1f} GiB",
        f"stage II, {voxels:.1f} million voxels, the CNN alone {two.cnn_flops / TERA:.2f} TFLOP; of {memory_gib:g} GiB "
        f"{budget.memory / GIB:.1f} are for tensors",
    )


def _training(sizing: Sizing) -> list[Decision]:
    """Stage lengths and learning rates."""
    recipe, rows = Recipe(), []
    first, why = "", "half of nnU-Net's 1000 epochs"
    if sizing.stage_one is not None:
        reason = "each of another case; as many as memory and stage II's operations allow, at most those of a batch"
        rows.append(_row("stage I", f"{sizing.recipe['stage1_slices']} slices per step", reason))
        reason = "of the encoder; 5e-5 for ViT-S, less for wider ones"
        rows.append(_row("stage I's learning rate", f"{sizing.recipe['rate_encoder']:g}", reason))
        first = f"{recipe.stage1_epochs} + "
        why += "; a tenth of them for the encoder"
    rates = f"{recipe.rate_decoder:g}, {recipe.rate_adapters:g}"
    reason = "CNN and adapters: modules inside the pretrained encoder learn more slowly"
    lengths = f"{first}{recipe.stage2_epochs} x {recipe.iterations_per_epoch} steps"
    return [
        *rows,
        _row("stage II's learning rates", rates, reason),
        _row("stage lengths", lengths, why),
    ]
