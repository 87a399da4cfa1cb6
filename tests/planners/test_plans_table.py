"""The plans of twelve kinds of data for four GPUs, as a table; and that every one of them can train.

A rule that is changed on purpose changes rows here: read them, then write down the new ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from dinomed3d.networks import NetworkSpec
from dinomed3d.training.optimizer import build_optimizer, set_rates
from dinomed3d.training.optimizer_step import OptimizerStep
from dinomed3d.training.recipe import Recipe
from examples.benchmarks.traced_steps import build, nnunet_loss, step_inputs, step_loss
from planners.sizing import ENCODER_CANDIDATES, Sizing, size_configuration
from tests.planners.fingerprints import FINGERPRINTS, TARGETS
from tests.planners.steps import first_peaks, make_inputs

ENCODERS = dict(zip(ENCODER_CANDIDATES, ("large", "base", "small+", "small"), strict=True))

# "again": blocks of the encoder are computed again in the backward pass (activation checkpointing)
TABLE = """
data         | GiB | encoder | token | levels | patch           | batch | again | decoder | slices
hippocampus  |   6 | base    |     4 |      3 | 36 x 52 x 36    |     6 | no    |     256 |     73
hippocampus  |  12 | large   |     4 |      3 | 36 x 52 x 36    |     4 | no    |     256 |     47
hippocampus  |  24 | large   |     4 |      3 | 36 x 52 x 36    |    11 | no    |     256 |     96
hippocampus  |  80 | large   |     4 |      3 | 36 x 52 x 36    |    12 | no    |     256 |     96
prostate     |   6 | small   |    16 |      6 | 20 x 320 x 320  |     2 | no    |      96 |     40
prostate     |  12 | small+  |     8 |      5 | 20 x 320 x 320  |     2 | no    |     256 |     20
prostate     |  24 | base    |     8 |      5 | 20 x 320 x 320  |     2 | no    |     256 |     29
prostate     |  80 | large   |     8 |      5 | 20 x 320 x 320  |     2 | no    |     256 |     38
brain tumour |   6 | small   |     4 |      3 | 16 x 172 x 140  |     2 | no    |     256 |     13
brain tumour |  12 | base    |     4 |      3 | 18 x 172 x 140  |     2 | no    |     256 |     13
brain tumour |  24 | base    |     4 |      3 | 32 x 172 x 140  |     2 | no    |     256 |     30
brain tumour |  80 | large   |     4 |      3 | 32 x 172 x 140  |     2 | no    |     256 |     40
cine heart   |   6 | base    |     8 |      5 | 9 x 240 x 208   |     3 | no    |     256 |     11
cine heart   |  12 | base    |     8 |      5 | 9 x 240 x 208   |     6 | no    |     256 |     27
cine heart   |  24 | large   |     8 |      5 | 9 x 240 x 208   |     6 | no    |     256 |     20
cine heart   |  80 | large   |     8 |      5 | 9 x 240 x 208   |    10 | no    |     256 |     79
liver CT     |   6 | small   |    32 |      7 | 16 x 512 x 512  |     2 | yes   |      96 |     32
liver CT     |  12 | small+  |    16 |      6 | 19 x 512 x 512  |     2 | no    |      96 |     32
liver CT     |  24 | large   |    16 |      6 | 17 x 512 x 512  |     2 | no    |     256 |     15
liver CT     |  80 | large   |    16 |      6 | 32 x 512 x 512  |     3 | no    |     256 |     60
whole body   |   6 | small   |    16 |      5 | 13 x 400 x 400  |     2 | yes   |      96 |     26
whole body   |  12 | base    |    16 |      5 | 18 x 400 x 400  |     2 | no    |     256 |     27
whole body   |  24 | large   |    16 |      5 | 23 x 400 x 400  |     2 | no    |     256 |     22
whole body   |  80 | large   |    16 |      5 | 32 x 400 x 400  |     5 | no    |     256 |     90
micro-CT     |   6 | small   |    32 |      7 | 8 x 704 x 704   |     2 | yes   |      96 |     16
micro-CT     |  12 | small   |    32 |      7 | 17 x 704 x 704  |     2 | yes   |      96 |     34
micro-CT     |  24 | base    |    16 |      6 | 16 x 704 x 704  |     2 | no    |     256 |     23
micro-CT     |  80 | large   |    16 |      6 | 28 x 704 x 704  |     2 | no    |     256 |     31
retina OCT   |   6 | small   |    16 |      6 | 12 x 512 x 512  |     2 | yes   |      96 |     24
retina OCT   |  12 | small+  |    16 |      6 | 17 x 512 x 512  |     2 | no    |     128 |     29
retina OCT   |  24 | large   |    16 |      6 | 16 x 512 x 512  |     2 | no    |     256 |     14
retina OCT   |  80 | large   |    16 |      6 | 32 x 512 x 512  |     3 | no    |     256 |     59
ultrasound   |   6 | base    |    16 |      5 | 400 x 560       |    16 | no    |     256 |     10
ultrasound   |  12 | base    |    16 |      5 | 400 x 560       |    35 | no    |     256 |     24
ultrasound   |  24 | large   |    16 |      5 | 400 x 560       |    40 | no    |     256 |     17
ultrasound   |  80 | large   |    16 |      5 | 400 x 560       |    49 | no    |     256 |     49
X-ray        |   6 | small   |    32 |      7 | 2048 x 2048     |     2 | yes   |      96 |      2
X-ray        |  12 | small   |    32 |      7 | 2048 x 2048     |     3 | no    |      96 |      3
X-ray        |  24 | small   |    32 |      7 | 2048 x 2048     |     7 | no    |      96 |      7
X-ray        |  80 | large   |    32 |      7 | 2048 x 2048     |    17 | no    |     256 |     12
one slice    |   6 | base    |     8 |      5 | 256 x 256       |    15 | no    |     256 |      8
one slice    |  12 | base    |     8 |      5 | 256 x 256       |    15 | no    |     256 |     15
one slice    |  24 | large   |     8 |      5 | 256 x 256       |    15 | no    |     256 |     15
one slice    |  80 | large   |     8 |      5 | 256 x 256       |    15 | no    |     256 |     15
117 labels   |   6 | small   |     8 |      4 | 11 x 248 x 248  |     2 | yes   |     256 |     22
117 labels   |  12 | small+  |     8 |      4 | 16 x 248 x 248  |     2 | no    |     256 |     24
117 labels   |  24 | large   |     8 |      4 | 17 x 248 x 248  |     2 | no    |     256 |     14
117 labels   |  80 | large   |     8 |      4 | 32 x 248 x 248  |     3 | no    |     256 |     58
"""


def row(name: str, gib: float, sizing: Sizing) -> str:
    """A plan as the table has it."""
    spec, recipe = sizing.spec, sizing.recipe
    patch = " x ".join(map(str, sizing.patch))
    again = "yes" if recipe["activation_checkpointing"] else "no"
    return (
        f"{name:<12} | {gib:>3} | {ENCODERS[spec.encoder]:<7} | {spec.voxels_per_token:>5} | {spec.levels:>6} | "
        f"{patch:<15} | {sizing.batch:>5} | {again:<5} | {spec.pyramid_width:>7} | {recipe['stage1_slices']:>6}"
    )


PLANS = {
    (name, gib): size_configuration(fingerprint.stats, gib)
    for name, fingerprint in FINGERPRINTS.items()
    for gib in TARGETS
}


def test_plans_are_those_of_the_table() -> None:
    planned = [row(name, gib, sizing) for (name, gib), sizing in PLANS.items()]
    assert planned == TABLE.strip().splitlines()[1:]


def unlike() -> Iterator[tuple[str, int]]:
    """Plans of which each has another network, patch, batch or number of slices."""
    seen: list[object] = []
    for (name, gib), sizing in PLANS.items():
        found = (sizing.spec, sizing.patch, sizing.batch, sizing.recipe)
        if found not in seen:
            seen.append(found)
            yield name, gib


UNLIKE = list(unlike())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gib"), UNLIKE, ids=[f"{n}, {g} GiB" for n, g in UNLIKE])
def test_every_plan_runs_in_the_memory_that_was_counted(name: str, gib: int) -> None:
    """The network itself, at its full width, in steps and a prediction of full size, on fake tensors."""
    data, sizing = FINGERPRINTS[name], PLANS[name, gib]
    *training, predicting = first_peaks(
        sizing.spec,
        sizing.patch,
        batch=sizing.batch,
        channels=data.channels,
        classes=data.classes,
        slices=sizing.recipe["stage1_slices"],
        checkpointing=sizing.recipe["activation_checkpointing"],
    )
    assert sizing.prediction == pytest.approx(predicting, rel=0.15)
    for cost, peak in zip((sizing.stage_one, sizing.stage_two), training, strict=True):
        assert cost is not None
        moments = 8 * cost.trained  # of the optimizer, from the second step on
        assert cost.peak - moments == pytest.approx(peak, rel=0.15)
        assert peak + moments < (0.95 * gib - 0.5) * 2**30  # a twentieth for the allocator's gaps


def reduced(spec: NetworkSpec) -> NetworkSpec:
    """The same grid of levels and tokens, as narrow as can be."""
    return replace(
        spec,
        encoder=ENCODER_CANDIDATES[-1],
        encoder_overrides={"embed_dim": 24, "depth": 2, "num_heads": 2},
        detail_widths=tuple(range(3, 3 + len(spec.detail_widths))),
        pyramid_width=6,
        adapter_width=4,
        lora_rank=2,
    )


def grids() -> dict[str, tuple[NetworkSpec, tuple[int, ...], int, int]]:
    """Reduced plans that differ in their grid; widths and batches, which they lose, aside."""
    found: dict[object, tuple[str, tuple[NetworkSpec, tuple[int, ...], int, int]]] = {}
    for (name, gib), sizing in PLANS.items():
        data = FINGERPRINTS[name]
        *depth, height, width = sizing.patch
        most = 4 if height * width < 500**2 else 2
        shallow = (*[min(most, d) for d in depth], height, width)
        plan = (reduced(sizing.spec), shallow, data.channels, min(8, data.classes))
        found.setdefault(repr(plan), (f"{name}, {gib} GiB", plan))
    return dict(found.values())


GRIDS = grids()


@pytest.mark.slow
@pytest.mark.parametrize("plan", GRIDS.values(), ids=GRIDS.keys())
def test_every_grid_learns_and_predicts(
    plan: tuple[NetworkSpec, tuple[int, ...], int, int],
) -> None:
    """Real steps of both stages on the planned plane, few slices deep, then a prediction."""
    spec, patch, channels, classes = plan
    slices = min(4, 2 * math.prod(patch[:-2]))
    torch.manual_seed(0)
    for stage in (1, 2):
        network = build(spec, channels=channels, classes=classes, stage=stage)
        before = {name: value.detach().clone() for name, value in network.named_parameters()}
        inputs = step_inputs(
            network, patch, stage=stage, batch=2, channels=channels, slices=slices
        )  # fmt: skip
        recipe = Recipe()
        optimizer = build_optimizer(network, recipe, stage=stage, device=torch.device("cpu"))
        set_rates(optimizer, 1.0)
        step = OptimizerStep(optimizer, clip=recipe.clip, scaler=None)
        compute = step_loss(network, stage=stage, loss=nnunet_loss())
        loss, norm = step(compute(**make_inputs(inputs, classes=classes)))
        assert loss.isfinite() and norm.isfinite() and norm > 0
        for name, value in network.named_parameters():
            changed = not torch.equal(value, before[name])
            # a low-rank update's first factor waits for its second, which begins at zero
            waits = name.endswith("lora_down") or ".adapters." in name and ".up." not in name
            assert changed == value.requires_grad or waits, name
            assert value.isfinite().all(), name
    network.eval().decoder.deep_supervision = False
    with torch.inference_mode():
        logits = network(torch.randn(1, channels, *patch))
    assert logits.shape == (1, classes, *patch)
    assert logits.isfinite().all()
