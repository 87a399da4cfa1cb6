"""The sizing rules one by one, and what holds for every plan that they make."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dinomed3d.networks import NetworkSpec, depth_kernels
from dinomed3d.runtime.errors import UserError
from planners.budget import Budget
from planners.cost import stage_two
from planners.dataset_stats import DatasetStats
from planners.decisions import decisions
from planners.encoders import encoder_size
from planners.network_rules import (
    adapter_width_for,
    detail_widths_for,
    learning_rate_for,
    levels_for,
    round_up,
    token_side,
    tokens_of,
)
from planners.sizing import ENCODER_CANDIDATES, Search, Sizing, Trial, size_configuration
from tests.planners.fingerprints import FINGERPRINTS, TARGETS

LARGE, BASE, PLUS, SMALL = ENCODER_CANDIDATES
GIANT = "vit_giant_patch14_reg4_dinov2"
GIB = 2**30


def images(shape: tuple[int, ...], spacing: tuple[float, ...] = (), **more: Any) -> DatasetStats:
    fields = {"voxels": 1e12, "channels": 1, "classes": 3} | more
    return DatasetStats(spacing=spacing or (1.0,) * len(shape), shape=shape, **fields)


# ---- rules by themselves ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "token"),
    [
        (512, 512, 16),  # 32 x 32 tokens, exactly TARGET_TOKENS
        (256, 256, 8),
        (128, 128, 4),
        (35, 50, 4),  # 109 tokens; finer ones than 4 there are not
        (2000, 2000, 32),  # 3906 tokens; coarser ones than 32 there are not
        (512, 256, 8),  # 2048 or 512, equally far: the finer
        (400, 400, 16),  # 625 tokens, 1.6 times too few; with 8 there would be 2.4 times too many
        (320, 319, 8),  # 1595 tokens, 1.6 times too many; with 16 there would be 2.6 times too few
        (64, 4096, 16),  # the area counts, not the shape
        (181, 181, 4),  # 2048 tokens of 4, 512 of 8: a tie is broken towards the finer
        (182, 182, 8),  # 2070 and 517: the coarser is closer by ratio
        (3000, 3000, 32),
    ],
)
def test_tokens_follow_the_area_of_a_slice(height: int, width: int, token: int) -> None:
    assert token_side(height, width) == token


@pytest.mark.parametrize(
    ("height", "width", "token", "levels"),
    [
        (512, 512, 16, 6),  # strides 1 to 16, and 32, which divides 512 too
        (320, 319, 8, 5),  # 320 x 320 either way
        (243, 243, 8, 4),  # 248 x 248, but 256 x 256 with one more, 6.6 % larger
        (50, 35, 4, 3),  # 52 x 36, but 56 x 40 with one more, 20 % larger
        (240, 208, 8, 5),
        (400, 400, 16, 5),  # 400 x 400, but 416 x 416 with one more, 8 % larger
        (64, 64, 16, 5),  # 4 x 4 pixels are left at stride 16, 2 x 2 would be at 32
        (60, 200, 16, 4),  # at stride 16 fewer than 4 pixels would be left
        (24, 200, 16, 3),  # six pixels at stride 4, three would be at 8
        (20, 20, 32, 3),  # never fewer than 3
        (64, 64, 1, 4),  # also beside tokens finer than are chosen
    ],
)
def test_levels_go_down_to_the_token(height: int, width: int, token: int, levels: int) -> None:
    assert levels_for(height, width, token) == levels


def test_the_detail_stream_is_narrower_beside_coarse_tokens() -> None:
    assert detail_widths_for(4, 3) == detail_widths_for(8, 5) == (16, 64, 128)
    assert detail_widths_for(16, 6) == (16, 32, 96)
    assert detail_widths_for(32, 7) == (16, 32, 64, 96)
    assert detail_widths_for(32, 3) == (16, 32, 64)  # no more than there are levels


def test_adapters_have_a_sixth_of_the_channels() -> None:
    widths = {24: 16, 96: 16, 384: 64, 768: 128, 1024: 160, 1536: 256}
    assert {channels: adapter_width_for(channels) for channels in widths} == widths


def test_wider_encoders_learn_more_slowly() -> None:
    rates = {96: 5e-5, 384: 5e-5, 768: 2.5e-5, 1024: 1.9e-5, 1280: 1.5e-5}
    assert {channels: learning_rate_for(channels) for channels in rates} == rates


@pytest.mark.parametrize(
    ("spacing", "kernels"),
    [
        ((1, 1, 1), (3, 3, 3, 3)),
        ((2, 1, 1), (3, 3, 3, 3)),  # exactly twice as thick is not thick yet
        ((2.1, 1, 1), (1, 3, 3, 3)),
        ((3.6, 0.62, 0.62), (1, 1, 3, 3)),  # against twice 0.62, 1.24, 2.48
        ((10, 1.56, 1.56), (1, 1, 3, 3)),  # against 3.12, 6.24, 12.48
        ((0.12, 0.0039, 0.0117), (1, 1, 1, 3)),  # the longer side: 0.0234, 0.0468, 0.0936, 0.1872
        ((0.5, 1, 1), (3, 3, 3, 3)),
        ((100, 1, 1), (1, 1, 1, 1)),
    ],
)
def test_thick_slices_are_not_mixed_where_pixels_are_small(
    spacing: tuple[float, ...], kernels: tuple[int, ...]
) -> None:
    assert depth_kernels(spacing, 4, single_slice=False) == kernels
    assert depth_kernels(spacing, 4, single_slice=True) == (1, 1, 1, 1)


def test_a_tenth_and_half_a_gib_are_left_free() -> None:
    assert Budget(memory_gib=12).memory == pytest.approx(10.3 * GIB)
    assert Budget(memory_gib=0.5).memory == 0
    assert Budget(memory_gib=12).flops == 24e12
    assert Budget(memory_gib=12, unlimited_time=True).flops == math.inf
    for gib in (0.6, 1, 6, 80):
        assert Budget.for_bytes(Budget(memory_gib=gib).memory) == pytest.approx(gib)


@pytest.mark.parametrize("gib", [0, -8, math.nan, math.inf])
def test_a_target_that_is_no_size_is_refused(gib: float) -> None:
    with pytest.raises(UserError, match="-gpu_memory_target"):
        size_configuration(images((40, 64, 64)), gib)


def test_sizes_are_rounded_up() -> None:
    assert [round_up(side, 16) for side in (1, 16, 17, 319)] == [16, 16, 32, 320]


def test_tokens_of_a_slice_by_hand() -> None:
    spec = NetworkSpec(voxels_per_token=8)
    assert tokens_of(spec, (20, 320, 320)) == 1600
    assert tokens_of(spec, (33, 40)) == 5 * 5


def test_a_batch_shows_a_twentieth_of_the_dataset() -> None:
    """260 volumes of 36 x 50 x 35 in patches of 36 x 52 x 36: 819 000 / 67 392 = 12.2 patches."""
    sizing = size_configuration(FINGERPRINTS["hippocampus"].stats, 80)
    assert (sizing.patch, sizing.batch) == ((36, 52, 36), 12)
    few = replace(FINGERPRINTS["hippocampus"].stats, voxels=10 * 36 * 50 * 35)
    assert size_configuration(few, 80).batch == 2  # half a patch, but never fewer than two


def test_a_batch_has_at_most_64_patches() -> None:
    assert size_configuration(images((32, 32)), 80).batch == 64
    assert size_configuration(images((32, 32), voxels=20 * 30 * 32 * 32), 80).batch == 30


def test_short_volumes_are_taken_whole_and_long_ones_in_part() -> None:
    assert size_configuration(images((48, 48, 48)), 80).patch[0] == 48
    assert size_configuration(images((49, 48, 48)), 80).patch[0] == 32


def test_a_short_memory_takes_speed_then_fine_tokens_then_slices_then_the_whole_slice() -> None:
    data = replace(FINGERPRINTS["liver CT"].stats, shape=(500, 256, 256))
    plans = [size_configuration(data, gib) for gib in (40, 5, 1.5, 1.2)]
    assert [p.recipe["activation_checkpointing"] for p in plans] == [False, True, True, True]
    tokens = [tokens_of(p.spec, p.patch) for p in plans]
    assert tokens[0] == tokens[1] == 1024 and tokens[2] == 256
    assert [p.patch[-2:] == (256, 256) for p in plans] == [True, True, True, False]
    assert plans[0].patch[0] == 32 and plans[1].patch[0] >= 16 > plans[3].patch[0]


def test_of_a_long_slice_the_longer_side_is_cropped_first() -> None:
    """2400 x 150: by quarters to 1800, 1350, ... until it fits; the short side stays while it can."""
    sizing = size_configuration(images((40, 2400, 150)), 2)
    assert 150 <= sizing.patch[-1] < sizing.patch[-2] < 2400
    assert sizing.patch[-1] - 150 < sizing.spec.multiple


def test_nothing_is_cropped_below_64_voxels() -> None:
    with pytest.raises(UserError, match=r"even for a patch of \[1, 64, 64\]"):
        size_configuration(images((40, 500, 700)), 0.6)
    with pytest.raises(UserError, match=r"even for a patch of \[52, 36\]"):
        size_configuration(images((50, 35)), 0.6)


def test_a_single_slice_of_2d_data_is_no_reason_for_a_larger_encoder() -> None:
    """Eight of them must fit beside it in both stages, though a larger encoder would train on two."""

    def slices(sizing: Sizing) -> int:
        return min(sizing.batch, sizing.recipe["stage1_slices"])

    data = FINGERPRINTS["ultrasound"].stats
    sizing, less = size_configuration(data, 5.5), size_configuration(data, 5)
    assert (sizing.spec.encoder, slices(sizing) >= 8) == (BASE, True)
    assert (less.spec.encoder, slices(less) >= 8) == (PLUS, True)
    assert slices(size_configuration(data, 5, {"encoder": BASE})) < 8


def test_forced_fields_may_exceed_the_time_but_not_the_memory() -> None:
    """Tokens of one voxel: the attention of 4096 of them alone is more than 2 GiB's 4 TFLOP."""
    budget = Budget(memory_gib=2)
    sizing = size_configuration(FINGERPRINTS["prostate"].stats, 2, {"voxels_per_token": 1})
    assert sizing.batch == 2
    assert sizing.stage_two.flops > budget.flops
    assert sizing.peak <= budget.memory


def test_a_first_stage_holds_its_share_of_the_slices() -> None:
    whole = images((400, 96, 96))
    assert size_configuration(whole, 24).patch[0] == 32
    assert size_configuration(replace(whole, context=0.125), 24).patch[0] == 50


def test_one_slice_is_embedded_without_neighbours_nor_mixing() -> None:
    for flat in (images((256, 256)), images((1, 256, 256), (5, 1, 1))):
        sizing = size_configuration(flat, 12)
        assert sizing.patch == flat.shape
        assert sizing.spec.slices == 1
        assert set(sizing.spec.depth_kernels) == {1}
    assert size_configuration(images((2, 256, 256)), 12).spec.slices == 3


@pytest.mark.parametrize("name", ["prostate", "liver CT", "brain tumour", "cine heart"])
@pytest.mark.parametrize("gib", [6, 24])
def test_the_decoder_is_as_wide_as_stays_small_beside_the_encoder(name: str, gib: float) -> None:
    data = FINGERPRINTS[name].stats
    sizing = size_configuration(data, gib)

    def share(width: int) -> float:
        spec = replace(sizing.spec, pyramid_width=width)
        parts = stage_two(
            spec, sizing.patch, batch=1, channels=data.channels, classes=data.classes
        ).components
        return (parts["neck"].flops + parts["decoder"].flops) / parts["encoder"].flops

    widths = (96, 128, 192, 256)
    chosen = widths.index(sizing.spec.pyramid_width)
    # slices are padded for the decision only as far as the patch is, so it holds for the patch too
    assert chosen == 0 or share(widths[chosen]) <= 1 / 3 + 1e-9
    assert chosen == 3 or share(widths[chosen + 1]) > 1 / 3


# ---- what holds for every plan ----------------------------------------------------------------------


def drawn() -> Iterator[tuple[str, DatasetStats]]:
    """Datasets of any size and shape, always the same ones."""
    rng = np.random.default_rng(5)
    for number in range(40):
        axes = 2 if number % 5 == 0 else 3
        plane = np.exp(rng.uniform(np.log(12), np.log(1600), 2) if number % 3 else rng.uniform(
            np.log(64), np.log(640), 1).repeat(2))  # fmt: skip
        depth = np.exp(rng.uniform(0, np.log(600)))
        shape = tuple(int(side) for side in (depth, *plane))[-axes:]
        spacing = tuple(float(s) for s in rng.uniform(0.1, 6, 3))[-axes:]
        yield (
            f"drawn {number}",
            DatasetStats(
                spacing=spacing,
                shape=shape,
                voxels=float(np.prod(shape)) * int(rng.integers(4, 500)),
                channels=int(rng.integers(1, 5)),
                classes=int(rng.integers(1, 30)),
            ),
        )


DATA = {name: fingerprint.stats for name, fingerprint in FINGERPRINTS.items()} | dict(drawn())


def smallest_whole(search: Search, budget: Budget) -> Trial | None:
    """The smallest network's trial with whole slices, whatever else is given up for them."""
    whole = [demands for demands in search.fallbacks() if demands.plane == search.plane]
    trials = [search.deepest(search.encoders[-1], demands, budget) for demands in whole]
    return next((trial for trial in trials if trial is not None), None)


def check(data: DatasetStats, sizing: Sizing, gib: float) -> None:
    """All that must hold for a plan."""
    budget, spec, patch = Budget(memory_gib=gib), sizing.spec, sizing.patch
    assert sizing.peak <= budget.memory
    assert sizing.peak >= sizing.stage_two.peak
    assert sizing.prediction <= budget.memory
    assert 2 <= sizing.batch <= 64
    assert len(patch) == len(data.shape)
    for side in patch[-2:]:
        assert side % spec.multiple == side % spec.voxels_per_token == 0
    slices = math.prod(patch[:-2])
    assert 1 <= slices <= math.prod(data.shape[:-2])
    spec.check_patch(patch)
    assert NetworkSpec.from_arch_kwargs(spec.to_arch_kwargs()) == spec
    assert all(p <= max(round_up(s, spec.multiple), 2 * spec.multiple) for p, s in zip(
        patch[-2:], data.shape[-2:], strict=True))  # fmt: skip
    # nothing of a slice is lost, nor is more padded than must be
    cropped = any(p < s for p, s in zip(patch[-2:], data.shape[-2:], strict=True))
    if cropped:
        assert spec.encoder == ENCODER_CANDIDATES[-1]
        assert sizing.recipe["activation_checkpointing"]
        assert smallest_whole(Search(data, {}), budget) is None
    else:
        assert patch[-2:] == tuple(round_up(s, spec.multiple) for s in data.shape[-2:])
    assert 1 <= spec.deep_supervision_heads < spec.levels
    # the encoder is larger than the smallest only where nothing had to be given up for it
    if spec.encoder != ENCODER_CANDIDATES[-1]:
        assert not sizing.recipe["activation_checkpointing"]
        assert spec.voxels_per_token == token_side(*data.shape[-2:])
        assert slices >= min(16, math.prod(data.shape[:-2]))
        assert sizing.stage_two.flops <= budget.flops
        assert sizing.stage_one is not None
        assert sizing.stage_one.flops <= budget.flops
    stage_one = sizing.recipe["stage1_slices"]
    assert 2 <= stage_one <= min(96, sizing.batch * slices)
    # two bounds of the recipe, which must not contradict one another
    assert sizing.recipe["stage1_tokens"] == stage_one * tokens_of(spec, patch)
    # nothing that would have fitted was left out
    one_more = stage_two(
        spec, patch, batch=sizing.batch + 1, channels=data.channels, classes=data.classes,
        checkpointing=sizing.recipe["activation_checkpointing"],
    )  # fmt: skip
    shown = (sizing.batch + 0.5) * math.prod(patch) > 0.05 * data.voxels
    too_much = one_more.peak > budget.memory or one_more.flops > budget.flops
    assert too_much or shown or sizing.batch == 64


@pytest.mark.parametrize("gib", TARGETS)
@pytest.mark.parametrize("name", DATA)
def test_every_plan_keeps_its_promises(name: str, gib: float) -> None:
    data = DATA[name]
    check(data, size_configuration(data, gib), gib)


@pytest.mark.parametrize("name", DATA)
def test_more_memory_never_gives_a_smaller_encoder(name: str) -> None:
    targets = [4, 5, 6, 8, 10, 11, 12, 14, 16, 20, 24, 32, 40, 48, 64, 80, 96, 141]
    sizes = [
        ENCODER_CANDIDATES[::-1].index(size_configuration(DATA[name], gib).spec.encoder)
        for gib in targets
    ]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("name", DATA)
def test_with_memory_and_time_enough_there_is_nothing_to_give_up(name: str) -> None:
    data = DATA[name]
    sizing = size_configuration(data, 2000)
    assert sizing.spec.encoder == LARGE
    assert not sizing.recipe["activation_checkpointing"]
    assert sizing.spec.voxels_per_token == token_side(*data.shape[-2:])
    depth = math.prod(data.shape[:-2])
    assert math.prod(sizing.patch[:-2]) == (depth if depth <= 48 else 32)


@pytest.mark.parametrize("shape", [(4, 4), (1, 1), (1, 3, 4), (1, 1, 1), (2, 1, 1), (40, 1, 1)])
def test_even_a_single_voxel_makes_a_patch_that_can_be_normalised(shape: tuple[int, ...]) -> None:
    sizing = size_configuration(images(shape), 12)
    sizing.spec.check_patch(sizing.patch)
    assert all(p >= s for p, s in zip(sizing.patch[-2:], shape[-2:], strict=True))
    assert math.prod(sizing.patch[-2:]) <= 32


# ---- what the user has set --------------------------------------------------------------------------

FORCED: dict[str, dict[str, Any]] = {
    "an encoder that is not chosen by itself": {"encoder": "vit_huge_plus_patch16_dinov3"},
    "encoder": {"encoder": "vit_base_patch14_reg4_dinov2"},
    "sizes of the encoder": {"encoder_overrides": {"embed_dim": 192, "depth": 4, "num_heads": 3}},
    "finer tokens": {"voxels_per_token": 4},
    "coarser tokens": {"voxels_per_token": 32},
    "slices": {"slices": 5},
    "components": {"components": ("encoder", "detail")},
    "low rank": {"lora_rank": 4},
    "several": {
        "encoder": PLUS, "voxels_per_token": 8, "slices": 1, "components": ("encoder", "adapters"),
    },
}  # fmt: skip


@pytest.mark.parametrize("gib", [24, 80])
@pytest.mark.parametrize("forced", FORCED.values(), ids=FORCED.keys())
@pytest.mark.parametrize("name", ["prostate", "cine heart", "ultrasound"])
def test_forced_fields_are_kept(name: str, forced: dict[str, Any], gib: float) -> None:
    data = FINGERPRINTS[name].stats
    sizing = size_configuration(data, gib, forced)
    if "encoder_overrides" in forced:
        assert sizing.spec.encoder == ENCODER_CANDIDATES[-1]  # sizes of its own make no other name
    for field, value in forced.items():
        alone = field == "slices" and len(data.shape) == 2  # there is no neighbour to embed
        assert getattr(sizing.spec, field) == (1 if alone else value)
    assert sizing.peak <= Budget(memory_gib=gib).memory
    sizing.spec.check_patch(sizing.patch)
    size = encoder_size(sizing.spec.encoder, sizing.spec.encoder_overrides)
    assert sizing.spec.adapter_width == adapter_width_for(size.width)
    assert sizing.recipe["rate_encoder"] == learning_rate_for(size.width)


@pytest.mark.parametrize("encoder", [SMALL, LARGE])
def test_a_forced_encoder_is_not_replaced(encoder: str) -> None:
    data = FINGERPRINTS["cine heart"].stats
    for gib in (12, 24, 80):
        assert size_configuration(data, gib, {"encoder": encoder}).spec.encoder == encoder


def test_forced_tokens_are_kept_while_slices_are_cropped() -> None:
    data = FINGERPRINTS["X-ray"].stats
    sizing = size_configuration(data, 6, {"voxels_per_token": 8})
    assert sizing.spec.voxels_per_token == 8
    assert max(sizing.patch) < 2000


def test_without_an_encoder_there_is_no_first_stage() -> None:
    sizing = size_configuration(FINGERPRINTS["prostate"].stats, 12, {"components": ("detail",)})
    assert sizing.stage_one is None
    assert sizing.peak == sizing.stage_two.peak <= Budget(memory_gib=12).memory
    assert sizing.recipe == {"activation_checkpointing": False}
    assert sizing.spec.components == ("detail",)


def test_an_earlier_stage_is_counted_and_carried() -> None:
    alone = FINGERPRINTS["brain tumour"].stats
    after = replace(alone, channels=alone.channels + 2, cascade_channels=2)
    sizing = size_configuration(after, 12)
    assert sizing.spec.cascade_channels == 2
    assert size_configuration(alone, 12).spec.cascade_channels == 0
    assert sizing.peak <= Budget(memory_gib=12).memory


def test_every_decision_has_a_reason() -> None:
    for fingerprint in FINGERPRINTS.values():
        data = fingerprint.stats
        sizing = size_configuration(data, 12)
        rows = {row.what: row for row in decisions(data, sizing, 12, {})}
        assert all(row.value and row.why for row in rows.values())
        assert {"voxels per token", "encoder", "patch", "checkpointing", "batch", "taps",
                "slices per embedding", "tuned blocks", "3D adapters", "detail stream", "decoder",
                "deep supervision", "stage I", "stage lengths"} <= rows.keys()  # fmt: skip
        assert rows["patch"].value == " x ".join(map(str, sizing.patch))
        assert rows["encoder"].value == sizing.spec.encoder
        assert rows["batch"].value == str(sizing.batch)


def test_a_cropped_slice_is_a_reason() -> None:
    data = FINGERPRINTS["X-ray"].stats
    for gib, cropped in ((4, True), (24, False)):
        rows = {
            row.what: row.why for row in decisions(data, size_configuration(data, gib), gib, {})
        }
        assert ("are cropped because memory is short" in rows["patch"]) == cropped


# ---- what no plan can be made for -------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, 1, math.nan), (math.inf, 1, 1)])
def test_a_spacing_that_is_none_is_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="spacing"):
        images((40, 64, 64), spacing)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((0, 64, 64), (1, 1, 1)), ((40, 64, -1), (1, 1, 1)), ((64, 64), (1, 1, 1))],
)
def test_an_empty_shape_is_refused(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="shape"):
        images(shape, spacing)


@pytest.mark.parametrize(
    "fields", [{"classes": 0}, {"channels": 0}, {"channels": 2, "cascade_channels": 2}]
)
def test_nothing_to_see_or_to_learn_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(UserError, match="channels"):
        images((40, 64, 64), **fields)


@pytest.mark.parametrize("forced", [{}, {"encoder": GIANT}], ids=["any encoder", "a giant"])
@pytest.mark.parametrize("name", DATA)
def test_a_target_too_small_is_refused_with_one_that_is_not(
    name: str, forced: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=r"-gpu_memory_target 0.6 \(GiB\) is too small") as caught:
        size_configuration(DATA[name], 0.6, forced)
    need = re.search(r"outputs need ([\d.]+) even for a patch", str(caught.value))
    assert need is not None
    target = float(need[1])
    sizing = size_configuration(DATA[name], target, forced)
    assert sizing.peak <= Budget(memory_gib=target).memory
    with pytest.raises(UserError, match="is too small"):
        size_configuration(DATA[name], 0.8 * target, forced)


def test_a_forced_encoder_that_does_not_fit_is_named() -> None:
    with pytest.raises(UserError, match="is too small: vit_7b_patch16_dinov3"):
        size_configuration(DATA["cine heart"], 24, {"encoder": "vit_7b_patch16_dinov3"})
