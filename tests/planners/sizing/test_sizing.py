"""The sizing rules one by one, and what holds for every plan that they make."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from dinomed3d.networks import CnnSpec, NetworkSpec
from dinomed3d.runtime.errors import UserError
from examples.benchmarks.fingerprints import FINGERPRINTS, TARGETS, size, stock_rule
from planners.budget import Budget
from planners.cost.encoder_sizes import encoder_size
from planners.cost.geometry import tokens_of
from planners.sizing import CnnPlan, CnnRule, DatasetStats, Sizing, size_configuration
from planners.sizing.search import ENCODER_CANDIDATES, TOKEN_SHARE, Search, adapter_width_for
from planners.sizing.size_configuration import learning_rate_for

LARGE, BASE, PLUS, SMALL = ENCODER_CANDIDATES
GIANT = "vit_giant_patch14_reg4_dinov2"
GIB = 2**30
FLAT, CUBE = (1, 2, 2), (2, 2, 2)
CNN = CnnSpec(
    widths=(32, 64, 128, 256, 320),
    strides=((1, 1, 1), FLAT, CUBE, CUBE, CUBE),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    blocks=(2, 2, 2, 2, 2),
    decoder_blocks=(2, 2, 2, 2),
    residual=False,
)


def images(shape: tuple[int, ...], spacing: tuple[float, ...] = (), **more: Any) -> DatasetStats:
    fields = {"channels": 1, "classes": 3} | more
    return DatasetStats(spacing=spacing or (1.0,) * len(shape), shape=shape, **fields)


# ---- rules by themselves ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patch", "spacing", "forced", "tokens"),
    [
        # sides with 64 tokens or more of a slice; every third slice is 3 voxels away
        ((64, 128, 128), (1, 1, 1), {}, [(4, 1), (4, 3), (8, 1), (8, 3), (16, 1), (16, 3)]),
        ((64, 128, 120), (1, 1, 1), {}, [(4, 1), (4, 3), (8, 1), (8, 3), (16, 1), (16, 3)]),
        ((64, 128, 112), (1, 1, 1), {}, [(4, 1), (4, 3), (8, 1), (8, 3)]),  # 56 of 16 voxels
        # thrice 5 mm is more than tokens of 4 and 8 mm, less than of 16
        ((20, 256, 256), (5, 1, 1), {}, [(4, 1), (8, 1), (16, 1), (16, 3), (32, 1), (32, 3)]),
        ((20, 128, 128), (5.4, 0.5, 1), {}, [(4, 1), (8, 1), (16, 1)]),  # 16.2: the wider side counts
        ((2, 64, 64), (1, 1, 1), {}, [(4, 1), (8, 1)]),  # there is no third slice
        ((256, 256), (1, 1), {}, [(4, 1), (8, 1), (16, 1), (32, 1)]),
        ((24, 24), (1, 1), {}, [(4, 1)]),  # 36 tokens, but there are no finer ones
        ((64, 128, 128), (1, 1, 1), {"voxels_per_token": 2}, [(2, 1)]),
        ((64, 128, 128), (1, 1, 1), {"voxels_per_token": 32}, [(32, 1), (32, 3)]),
        ((64, 128, 128), (1, 1, 1), {"slices_per_token": 5}, [(4, 5), (8, 5), (16, 5)]),
        ((64, 64, 64), (1, 1, 1), {"voxels_per_token": 4, "slices_per_token": 1}, [(4, 1)]),
    ],
)  # fmt: skip
def test_tokens_to_choose_from(
    patch: tuple[int, ...],
    spacing: tuple[float, ...],
    forced: dict[str, int],
    tokens: list[tuple[int, int]],
) -> None:
    plan = CnnPlan(patch=patch, batch=2, cnn=CNN)
    search = Search(images(patch, spacing), lambda gib: plan, Budget(memory_gib=8), forced)
    assert search.tokens(plan) == tokens


def sliced(gib: float, share: float = 1.0) -> CnnPlan:
    """A plan for a share of the memory: 64 slices of 128 x 128 for all of it, half of them for half."""
    return CnnPlan(patch=(8 * max(1, round(8 * share)), 128, 128), batch=2, cnn=CNN)


def chosen(gib: float, forced: dict[str, Any] | None = None) -> Sizing:
    """A plan for images of 64 x 128 x 128 whose CNN is that of `sliced`."""
    return size_configuration(
        images((64, 128, 128)), lambda asked: sliced(gib, asked / gib), gib, forced
    )


def test_the_finest_tokens_that_add_half_to_the_cnn_are_chosen() -> None:
    """With ViT-S; finer ones add more. Then the largest encoder that adds no more than half either."""
    sizing = chosen(24)
    spec = sizing.spec
    assert sizing.stage_two.token_share <= TOKEN_SHARE
    search = Search(images((64, 128, 128)), sliced, Budget(memory_gib=24), {})
    cells = search.tokens(sliced(24))
    cell = (spec.voxels_per_token, spec.slices_per_token)
    for finer in cells[: cells.index(cell)]:
        share = chosen(
            24, {"encoder": SMALL, "voxels_per_token": finer[0], "slices_per_token": finer[1]}
        ).stage_two.token_share
        assert share > TOKEN_SHARE, finer
    for larger in ENCODER_CANDIDATES[: ENCODER_CANDIDATES.index(spec.encoder)]:
        forced = {"encoder": larger, "voxels_per_token": cell[0], "slices_per_token": cell[1]}
        assert chosen(80, forced).stage_two.token_share > TOKEN_SHARE


def test_short_of_memory_blocks_are_computed_again_then_the_patch_shrinks_and_tokens_stay_fine() -> (
    None
):
    ways = []
    for gib in (9, 4.2, 3.7, 3.3, 2.5):
        sizing = chosen(gib, {"encoder": SMALL})
        spec = sizing.spec
        assert sizing.peak <= Budget(memory_gib=gib).memory
        ways.append((sizing.trial.checkpointing, sizing.cnn_share))
        assert (spec.voxels_per_token, spec.slices_per_token) == (8, 3)
    assert ways[:4] == [(False, 1.0), (True, 1.0), (True, 0.9), (True, 0.8)]
    assert ways[4][1] < 0.8


def test_tokens_that_cannot_be_cheap_are_as_cheap_as_can_be() -> None:
    """Slices of 40 x 56 have 140 tokens of 4 voxels, of 8 too few: every third slice is all that can be saved."""
    sizing = size("hippocampus", 12)
    assert sizing.trial.patch == (40, 56, 40)
    assert (sizing.spec.voxels_per_token, sizing.spec.slices_per_token) == (4, 3)
    assert sizing.stage_two.token_share > TOKEN_SHARE
    assert sizing.spec.encoder == SMALL


def test_patch_batch_and_cnn_are_those_of_nnunets_rule() -> None:
    """128 x 128 x 128 and 2 for 8 GiB and isotropic volumes: nnU-Net's own reference."""
    data = FINGERPRINTS["liver CT"]
    plan = stock_rule(data.stats, data.cases)(8)
    sizing = size("liver CT", 8)
    assert sizing.cnn_share == 1
    assert (plan.patch, plan.batch) == ((128, 128, 128), 2)
    assert (sizing.trial.patch, sizing.trial.batch, sizing.spec.cnn) == (
        plan.patch, plan.batch, plan.cnn,
    )  # fmt: skip


def test_adapters_have_a_sixth_of_the_channels() -> None:
    widths = {24: 16, 96: 16, 384: 64, 768: 128, 1024: 160, 1536: 256}
    assert {channels: adapter_width_for(channels) for channels in widths} == widths


def test_wider_encoders_learn_more_slowly() -> None:
    rates = {96: 5e-5, 384: 5e-5, 768: 2.5e-5, 1024: 1.9e-5, 1280: 1.5e-5}
    assert {channels: learning_rate_for(channels) for channels in rates} == rates


def test_a_tenth_and_half_a_gib_are_left_free() -> None:
    assert Budget(memory_gib=12).memory == pytest.approx(10.3 * GIB)
    assert Budget(memory_gib=0.5).memory == 0
    for gib in (0.6, 1, 6, 80):
        assert Budget.for_bytes(Budget(memory_gib=gib).memory) == pytest.approx(gib)


@pytest.mark.parametrize("gib", [0, -8, math.nan, math.inf])
def test_a_target_that_is_no_size_is_refused(gib: float) -> None:
    with pytest.raises(UserError, match="-gpu_memory_target"):
        chosen(gib)


def test_tokens_of_a_slice_by_hand() -> None:
    spec = NetworkSpec(voxels_per_token=8)
    assert tokens_of(spec, (20, 320, 320)) == 1600
    assert tokens_of(spec, (33, 40)) == 5 * 5


def test_one_slice_is_embedded_without_neighbours() -> None:
    for flat in (images((256, 256)), images((1, 256, 256), (5, 1, 1))):
        sizing = size_configuration(flat, stock_rule(flat), 12)
        assert (sizing.spec.slices, sizing.spec.slices_per_token) == (1, 1)
    assert size("cine heart", 12).spec.slices == 3


# ---- what holds for every plan ----------------------------------------------------------------------


def drawn() -> Iterator[tuple[str, DatasetStats]]:
    """Datasets of any size and shape, always the same ones."""
    rng = np.random.default_rng(5)
    for number in range(12):
        axes = 2 if number % 4 == 0 else 3
        plane = np.exp(rng.uniform(np.log(12), np.log(1600), 2) if number % 3 else rng.uniform(
            np.log(64), np.log(640), 1).repeat(2))  # fmt: skip
        depth = np.exp(rng.uniform(0, np.log(600)))
        shape = tuple(int(side) for side in (depth, *plane))[-axes:]
        spacing = tuple(float(s) for s in rng.uniform(0.1, 6, 3))[-axes:]
        channels, classes = int(rng.integers(1, 3)), int(rng.integers(2, 4))
        yield (
            f"drawn {number}",
            DatasetStats(spacing=spacing, shape=shape, channels=channels, classes=classes),
        )


DATA = {name: fingerprint.stats for name, fingerprint in FINGERPRINTS.items()} | dict(drawn())


@cache
def rule_of(name: str) -> CnnRule:
    cases = FINGERPRINTS[name].cases if name in FINGERPRINTS else 100
    return stock_rule(DATA[name], cases)


def check(data: DatasetStats, sizing: Sizing, gib: float) -> None:
    """All that must hold for a plan."""
    budget, spec, trial = Budget(memory_gib=gib), sizing.spec, sizing.trial
    patch = trial.patch
    assert sizing.peak <= budget.memory
    assert sizing.prediction <= budget.memory
    assert sizing.stage_one is not None
    assert sizing.peak == max(sizing.stage_one.peak, sizing.stage_two.peak)
    assert trial.batch >= 2 and len(patch) == len(data.shape)
    spec.check_patch(patch)
    assert NetworkSpec.from_arch_kwargs(spec.to_arch_kwargs()) == spec
    cheap = sizing.stage_two.token_share <= TOKEN_SHARE
    assert cheap or spec.encoder == SMALL
    assert tokens_of(spec, patch) >= 64 or spec.voxels_per_token == 4
    distance = data.spacing[0] * (len(patch) == 3)
    assert spec.slices_per_token == 1 or spec.slices_per_token * distance <= (
        spec.voxels_per_token * max(data.spacing[-2:])
    )
    slices = sizing.recipe["stage1_slices"]
    assert 2 <= slices <= min(96, trial.slices)
    assert slices == 2 or sizing.stage_one.flops <= sizing.stage_two.flops
    # two bounds of the recipe, which must not contradict one another
    assert sizing.recipe["stage1_tokens"] == slices * tokens_of(spec, patch)
    # the next slice of stage I, and the next larger encoder, would not have done
    if slices < min(96, trial.slices):
        more = trial.stage_one(data, slices + 1, sizing.stage_two.resident)
        assert more.peak > budget.memory or more.flops > sizing.stage_two.flops
    for larger in ENCODER_CANDIDATES[: ENCODER_CANDIDATES.index(spec.encoder)]:
        width = adapter_width_for(encoder_size(larger, {}).width)
        other = replace(trial, spec=replace(spec, encoder=larger, adapter_width=width))
        for again in (False, True):
            each = replace(other, checkpointing=again)
            assert each.peak(data) > budget.memory or each.stage_two(data).token_share > TOKEN_SHARE


@pytest.mark.parametrize("name", DATA)
def test_every_plan_keeps_its_promises(name: str) -> None:
    for gib in TARGETS:
        check(DATA[name], size_configuration(DATA[name], rule_of(name), gib), gib)


@pytest.mark.parametrize("shape", [(4, 4), (1, 1), (1, 3, 4), (1, 1, 1), (2, 1, 1), (40, 1, 1)])
def test_even_a_single_voxel_makes_a_patch_that_can_be_normalised(shape: tuple[int, ...]) -> None:
    data = images(shape)
    sizing = size_configuration(data, stock_rule(data), 12)
    sizing.spec.check_patch(sizing.trial.patch)
    assert sizing.trial.patch[-2:] == (16, 16)


# ---- what the user has set --------------------------------------------------------------------------

FORCED: dict[str, dict[str, Any]] = {
    "an encoder that is not chosen by itself": {"encoder": "vit_huge_plus_patch16_dinov3"},
    "encoder": {"encoder": "vit_base_patch14_dinov2"},
    "sizes of the encoder": {"encoder_overrides": {"embed_dim": 192, "depth": 4, "num_heads": 3}},
    "finer tokens": {"voxels_per_token": 4},
    "coarser tokens": {"voxels_per_token": 32},
    "slices": {"slices": 5},
    "slices per token": {"slices_per_token": 1},
    "components": {"components": ("encoder", "detail")},
    "low rank": {"lora_rank": 4},
    "several": {
        "encoder": PLUS, "voxels_per_token": 8, "slices": 1, "components": ("detail", "encoder", "adapters"),
    },
}  # fmt: skip


@pytest.mark.parametrize("side", [16, 32])
def test_tokens_that_the_patch_does_not_hold_are_refused_while_planning(side: int) -> None:
    data = images((16, 16))
    with pytest.raises(UserError, match="DINOMED3D_VOXELS_PER_TOKEN"):
        size_configuration(data, stock_rule(data), 12, {"voxels_per_token": side})


@pytest.mark.parametrize("forced", FORCED.values(), ids=FORCED.keys())
@pytest.mark.parametrize("name", ["prostate", "brain tumour", "ultrasound"])
def test_forced_fields_are_kept(name: str, forced: dict[str, Any]) -> None:
    data = FINGERPRINTS[name].stats
    sizing = size(name, 24, forced)
    if "encoder_overrides" in forced:
        assert sizing.spec.encoder == SMALL  # sizes of its own make no other name
    for field, value in forced.items():
        alone = field == "slices" and len(data.shape) == 2  # there is no neighbour to embed
        assert getattr(sizing.spec, field) == (1 if alone else value)
    assert sizing.peak <= Budget(memory_gib=24).memory
    sizing.spec.check_patch(sizing.trial.patch)
    width = encoder_size(sizing.spec.encoder, sizing.spec.encoder_overrides).width
    assert sizing.spec.adapter_width == adapter_width_for(width)
    assert sizing.recipe["rate_encoder"] == learning_rate_for(width)


def test_without_an_encoder_there_is_nnunets_cnn_and_no_first_stage() -> None:
    sizing = size("prostate", 12, {"components": ("detail",)})
    assert sizing.stage_one is None and sizing.cnn_share == 1
    assert sizing.peak == sizing.stage_two.peak <= Budget(memory_gib=12).memory
    assert sizing.recipe == {"activation_checkpointing": False}
    assert sizing.stage_two.token_share == 0


def test_an_earlier_configuration_is_counted_and_carried() -> None:
    alone = FINGERPRINTS["brain tumour"].stats
    after = replace(alone, channels=alone.channels + 2, cascade_channels=2)
    sizing = size_configuration(after, rule_of("brain tumour"), 12)
    assert sizing.spec.cascade_channels == 2
    assert size("brain tumour", 12).spec.cascade_channels == 0
    assert sizing.peak <= Budget(memory_gib=12).memory


# ---- what no plan can be made for -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "spacing", "more", "names"),
    [
        ((40, 64, 64), (0, 1, 1), {}, "spacing"),
        ((40, 64, 64), (1, -1, 1), {}, "spacing"),
        ((40, 64, 64), (1, 1, math.nan), {}, "spacing"),
        ((40, 64, 64), (math.inf, 1, 1), {}, "spacing"),
        ((0, 64, 64), (1, 1, 1), {}, "shape"),
        ((40, 64, -1), (1, 1, 1), {}, "shape"),
        ((64, 64), (1, 1, 1), {}, "shape"),
        ((40, 64, 64), (), {"classes": 0}, "channels"),
        ((40, 64, 64), (), {"channels": 0}, "channels"),
        ((40, 64, 64), (), {"channels": 2, "cascade_channels": 2}, "channels"),
    ],
)
def test_images_that_are_none_are_refused(
    shape: tuple[int, ...], spacing: tuple[float, ...], more: dict[str, int], names: str
) -> None:
    with pytest.raises(UserError, match=names):
        images(shape, spacing, **more)


@pytest.mark.parametrize("forced", [{}, {"encoder": GIANT}], ids=["any encoder", "a giant"])
@pytest.mark.parametrize("name", FINGERPRINTS)
def test_a_target_too_small_is_refused_with_one_that_is_not(
    name: str, forced: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=r"-gpu_memory_target 0.6 \(GiB\) is too small") as caught:
        size(name, 0.6, forced)
    need = re.search(r"outputs need ([\d.]+) even for a patch", str(caught.value))
    assert need is not None
    target = float(need[1])
    sizing = size(name, target, forced)
    assert sizing.peak <= Budget(memory_gib=target).memory
    with pytest.raises(UserError, match="is too small"):
        size(name, 0.8 * target, forced)


def test_a_forced_encoder_that_does_not_fit_is_named() -> None:
    with pytest.raises(UserError, match="is too small: vit_7b_patch16_dinov3"):
        size("cine heart", 24, {"encoder": "vit_7b_patch16_dinov3"})
