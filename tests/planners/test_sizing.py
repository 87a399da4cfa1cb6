"""The sizing rules: each by itself, worked by hand, and what must hold for every plan."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from dinomed3d.errors import UserError
from dinomed3d.networks import depth_kernels
from planners.decisions import decisions
from planners.sizing import (
    LADDER,
    Budget,
    Images,
    Sizing,
    adapter_width_for,
    detail_widths_for,
    levels_for,
    rate_for,
    round_up,
    size_configuration,
    token_side,
    tokens_of,
)
from tests.planners.fingerprints import FINGERPRINTS, TARGETS


def sized(name: str, memory: float, forced: dict[str, Any] | None = None) -> Sizing:
    return size_configuration(FINGERPRINTS[name].images, memory, forced)


# ---- rules by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plane", "side"),
    [
        ((512, 512), 16),  # 1024 tokens exactly
        ((256, 256), 8),
        ((128, 128), 4),
        ((181, 181), 4),  # 2048 tokens of 4, 512 of 8: a tie is broken towards the finer
        ((182, 182), 8),  # 2070 and 517: the coarser is closer by ratio
        ((35, 50), 4),  # 109 tokens, but finer would only blow slices up
        ((3000, 3000), 32),  # 8789 tokens, but coarser would lose the image
        ((64, 4096), 16),
    ],
)
def test_slices_get_about_a_thousand_tokens(plane: tuple[int, int], side: int) -> None:
    assert token_side(*plane) == side


@pytest.mark.parametrize(
    ("height", "width", "token", "levels"),
    [
        (256, 256, 8, 5),  # strides 1 to 16: one below the token costs no padding
        (400, 400, 16, 5),  # to 16; 32 would pad to 416, 8 % more
        (512, 496, 16, 6),  # to 32: 512 x 512 is 3 % more
        (50, 35, 4, 3),  # to 4: 8 would pad to 56 x 40
        (16, 16, 4, 3),  # to 4: below it there would be two pixels
        (24, 200, 16, 3),  # to 4 only: six pixels at 4, three at 8
    ],
)
def test_levels_go_down_to_the_token_or_one_below(
    height: int, width: int, token: int, levels: int
) -> None:
    assert levels_for(height, width, token) == levels


def test_widths_follow_token_and_encoder() -> None:
    assert detail_widths_for(8, 5) == (16, 64, 128)
    assert detail_widths_for(16, 6) == (16, 32, 96)
    assert detail_widths_for(32, 7) == (16, 32, 64, 96)
    assert detail_widths_for(8, 2) == (16, 64)
    assert [adapter_width_for(w) for w in (384, 768, 1024, 24)] == [64, 128, 160, 16]
    assert [rate_for(w) for w in (192, 384, 768, 1024)] == [5e-5, 5e-5, 2.5e-5, 1.9e-5]
    assert (round_up(35, 4), round_up(36, 4)) == (36, 36)


def test_levels_finer_than_half_the_slice_distance_do_not_mix_slices() -> None:
    assert depth_kernels((10, 1.5, 1.5), 5, flat=False) == (1, 1, 3, 3, 3)  # 10 > 2 * 1.5 * 2
    assert depth_kernels((3, 1.5, 1.5), 3, flat=False) == (3, 3, 3)  # 3 is not more than 2 * 1.5
    assert depth_kernels((1, 1, 1), 2, flat=True) == (1, 1)


def test_budget_leaves_room_for_libraries_and_has_an_inverse() -> None:
    budget = Budget(memory_gib=8)
    assert budget.memory == pytest.approx((7.2 - 0.5) * 2**30)
    assert Budget.for_bytes(budget.memory) == pytest.approx(8)
    assert budget.flops == 16e12
    assert replace(budget, unhurried=True).flops == math.inf
    assert Budget(memory_gib=0.1).memory == 0


# ---- what holds for every plan ----------------------------------------------------------------


@pytest.mark.parametrize("memory", TARGETS)
@pytest.mark.parametrize("name", FINGERPRINTS)
def test_a_plan_fits_its_memory_and_its_grid(name: str, memory: float) -> None:
    images, sizing = FINGERPRINTS[name].images, sized(name, memory)
    spec, patch, batch = sizing.spec, sizing.patch, sizing.batch
    assert sizing.peak <= Budget(memory_gib=memory).memory
    assert sizing.prediction < Budget(memory_gib=memory).memory
    assert batch >= 2
    assert all(
        side % spec.multiple == 0 and side % spec.voxels_per_token == 0 for side in patch[-2:]
    )
    assert all(side < median + spec.multiple for side, median in zip(patch[-2:], images.shape[-2:]))  # noqa: B905
    spec.check_patch(patch)
    depth = 1
    if len(patch) == 3:
        depth = patch[0]
        assert min(8, images.shape[0]) <= depth <= images.shape[0]
    slices = sizing.recipe["stage1_slices"]
    assert 2 <= slices <= batch * depth
    assert sizing.recipe["stage1_tokens"] == slices * tokens_of(spec, patch)
    if min(a - b for a, b in zip(patch[-2:], images.shape[-2:], strict=True)) < 0:
        assert sizing.recipe["activation_checkpointing"]  # whole slices are given up last


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_more_memory_never_gives_a_smaller_encoder(name: str) -> None:
    ranks = [
        LADDER.index(sized(name, memory).spec.encoder) for memory in (4, 6, 8, 12, 16, 24, 40, 80)
    ]
    assert ranks == sorted(ranks, reverse=True)


def test_a_short_memory_takes_speed_first_then_tokens_then_slices_then_the_whole_slice() -> None:
    images = replace(FINGERPRINTS["liver CT"].images, shape=(500, 256, 256))
    plans = [size_configuration(images, memory) for memory in (40, 6, 2, 1.2)]
    kept = [p.recipe["activation_checkpointing"] for p in plans]
    assert kept == [False, True, True, True]
    tokens = [tokens_of(p.spec, p.patch) for p in plans]
    assert tokens[0] == tokens[1] == 1024 and tokens[2] == 256
    assert [p.patch[-2:] == (256, 256) for p in plans] == [True, True, True, False]
    assert plans[0].patch[0] == 32 and plans[1].patch[0] >= 16 > plans[3].patch[0]


def test_a_coarse_first_stage_wants_an_eighth_of_the_slices() -> None:
    images = replace(FINGERPRINTS["whole body"].images, shape=(400, 128, 128), context=0.125)
    assert size_configuration(images, 24).patch[0] >= 50
    assert size_configuration(replace(images, context=0.0), 24).patch[0] <= 32


def test_a_batch_shows_a_twentieth_of_the_dataset_at_most() -> None:
    images = FINGERPRINTS["one slice"].images
    assert size_configuration(images, 80).batch == 15  # 0.05 * 300 slices of one patch each
    assert size_configuration(replace(images, voxels=images.voxels / 100), 80).batch == 2


@pytest.mark.parametrize(
    "forced",
    [
        {"encoder": "vit_huge_plus_patch16_dinov3"},
        {"encoder": "vit_base_patch14_reg4_dinov2"},
        {"encoder_overrides": {"embed_dim": 192, "depth": 6, "num_heads": 3}},
        {"voxels_per_token": 4},
        {"voxels_per_token": 32},
        {"slices": 5},
        {"parts": ("detail",)},
        {"parts": ("encoder", "detail")},
    ],
)
def test_what_is_asked_for_is_kept(forced: dict[str, Any]) -> None:
    sizing = sized("cine heart", 80, forced)
    for field, value in forced.items():
        assert getattr(sizing.spec, field) == value
    if "encoder_overrides" in forced:
        assert sizing.spec.encoder == LADDER[-1]  # sizes of its own make no other name
    if forced.get("parts") == ("detail",):
        assert sizing.stage_one is None and "stage1_slices" not in sizing.recipe


def test_every_decision_is_told_with_its_reason() -> None:
    for name in FINGERPRINTS:
        images, sizing = FINGERPRINTS[name].images, sized(name, 12)
        rows = {row.what: row for row in decisions(images, sizing, 12, {})}
        assert all(row.value and row.why for row in rows.values())
        assert {"voxels per token", "encoder", "patch", "activation checkpointing", "batch", "taps",
                "neighbouring slices (K)", "3D adapters", "detail stream", "neck and decoder",
                "deep supervision", "stage I", "stage lengths"} <= rows.keys()  # fmt: skip
        assert rows["patch"].value == " x ".join(map(str, sizing.patch))
        assert rows["encoder"].value == sizing.spec.encoder
    cropped = size_configuration(FINGERPRINTS["X-ray"].images, 6)
    told = {r.what: r.why for r in decisions(FINGERPRINTS["X-ray"].images, cropped, 6, {})}
    assert "are cropped, memory is short" in told["patch"]


# ---- what cannot be planned -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"spacing": (0.0, 1.0, 1.0)}, r"spacing must be positive in each axis, got \[0.0"),
        ({"spacing": (1.0, -1.0, 1.0)}, "spacing must be positive"),
        ({"spacing": (1.0, math.nan, 1.0)}, "spacing must be positive"),
        ({"shape": (0, 10, 10)}, "positive side per axis"),
        ({"shape": (10, 10)}, "positive side per axis"),
        ({"classes": 0}, "a label to learn"),
        ({"channels": 1, "prior_channels": 1}, "must be an image channel"),
    ],
)
def test_datasets_without_sense_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        replace(FINGERPRINTS["hippocampus"].images, **change)


@pytest.mark.parametrize("memory", [0, -1, math.nan, math.inf])
def test_a_target_that_is_no_size_is_refused(memory: float) -> None:
    with pytest.raises(UserError, match="must be a positive number of GiB"):
        sized("hippocampus", memory)


@pytest.mark.parametrize("name", ["hippocampus", "117 labels", "X-ray"])
def test_a_memory_too_small_is_refused_with_one_that_would_do(name: str) -> None:
    with pytest.raises(UserError, match="is too small") as error:
        sized(name, 0.6)
    need = float(str(error.value).split(" need ")[1].split()[0])
    assert need > 0.6
    assert sized(name, need + 0.1).batch == 2


def test_a_forced_encoder_that_does_not_fit_is_named() -> None:
    with pytest.raises(UserError, match="vit_7b_patch16_dinov3"):
        sized("cine heart", 24, {"encoder": "vit_7b_patch16_dinov3"})


def test_images_are_not_changed_by_planning() -> None:
    images: Images = FINGERPRINTS["hippocampus"].images
    before = replace(images)
    size_configuration(images, 8)
    assert images == before
