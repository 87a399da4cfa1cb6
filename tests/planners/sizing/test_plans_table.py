"""The plans of twelve kinds of data for four GPUs, as a table; and that plans unlike one another can train.

A rule that is changed on purpose changes rows here: read them, then write down the new ones.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dinomed3d.networks import CnnSpec, NetworkSpec
from dinomed3d.training.settings.recipe import Recipe
from dinomed3d.training.step.optimizer import build_optimizer, set_rates
from dinomed3d.training.step.optimizer_step import OptimizerStep
from examples.benchmarks.fingerprints import FINGERPRINTS, TARGETS, size
from examples.benchmarks.traced_steps import build, nnunet_loss, step_inputs, step_loss
from planners.sizing import Sizing
from planners.sizing.search import ENCODER_CANDIDATES
from tests.planners.steps import first_peaks, make_inputs

ENCODERS = dict(zip(ENCODER_CANDIDATES, ("large", "base", "small+", "small"), strict=True))

# CNN: share of the memory that nnU-Net's rule was asked for; tokens: side in voxels / every how many slices;
# again: tuned blocks are computed again in the backward pass; adds: operations of the tokens' side to the CNN's
TABLE = """
data         | GiB |  CNN | patch           | batch | levels | tokens | encoder | again | adds | slices
hippocampus  |   6 | 100% | 40 x 56 x 40    |     9 |      4 |  4 / 3 | small   | no    |  89% |     96
hippocampus  |  12 | 100% | 40 x 56 x 40    |     9 |      4 |  4 / 3 | small   | no    |  89% |     96
hippocampus  |  24 | 100% | 40 x 56 x 40    |     9 |      4 |  4 / 3 | small   | no    |  89% |     96
hippocampus  |  80 | 100% | 40 x 56 x 40    |     9 |      4 |  4 / 3 | small   | no    |  89% |     96
prostate     |   6 | 100% | 20 x 256 x 256  |     2 |      7 | 16 / 1 | small+  | yes   |  21% |     40
prostate     |  12 | 100% | 20 x 320 x 320  |     2 |      7 | 16 / 1 | base    | no    |  47% |     40
prostate     |  24 | 100% | 20 x 320 x 320  |     2 |      7 | 16 / 1 | base    | no    |  47% |     40
prostate     |  80 | 100% | 20 x 320 x 320  |     2 |      7 | 16 / 1 | base    | no    |  47% |     40
brain tumour |   6 | 100% | 128 x 128 x 112 |     2 |      6 |  8 / 3 | small+  | yes   |  34% |     96
brain tumour |  12 | 100% | 128 x 192 x 128 |     2 |      6 |  8 / 3 | small+  | no    |  29% |     96
brain tumour |  24 | 100% | 160 x 192 x 160 |     3 |      6 |  8 / 3 | small+  | yes   |  37% |     96
brain tumour |  80 | 100% | 160 x 192 x 160 |    11 |      6 |  8 / 3 | small+  | yes   |  37% |     96
cine heart   |   6 | 100% | 10 x 256 x 224  |     5 |      6 | 16 / 1 | small+  | yes   |  20% |     50
cine heart   |  12 | 100% | 10 x 256 x 224  |     8 |      6 | 16 / 1 | base    | no    |  44% |     80
cine heart   |  24 | 100% | 10 x 256 x 224  |     8 |      6 | 16 / 1 | base    | no    |  44% |     80
cine heart   |  80 | 100% | 10 x 256 x 224  |     8 |      6 | 16 / 1 | base    | no    |  44% |     80
liver CT     |   6 | 100% | 112 x 128 x 128 |     2 |      6 |  8 / 3 | small+  | yes   |  34% |     96
liver CT     |  12 | 100% | 128 x 160 x 160 |     2 |      6 |  8 / 3 | small+  | no    |  29% |     96
liver CT     |  24 | 100% | 192 x 192 x 192 |     2 |      6 |  8 / 3 | small+  | no    |  30% |     96
liver CT     |  80 | 100% | 224 x 320 x 320 |     2 |      7 |  8 / 3 | small+  | no    |  40% |     96
whole body   |   6 | 100% | 192 x 96 x 80   |     2 |      6 |  8 / 3 | small+  | yes   |  33% |     96
whole body   |  12 | 100% | 256 x 112 x 112 |     2 |      6 |  8 / 3 | small+  | yes   |  33% |     96
whole body   |  24 | 100% | 256 x 160 x 160 |     2 |      6 |  8 / 3 | small+  | yes   |  35% |     96
whole body   |  80 |  80% | 256 x 256 x 256 |     2 |      7 |  8 / 3 | small+  | no    |  34% |     96
micro-CT     |   6 | 100% | 128 x 128 x 112 |     2 |      6 |  8 / 3 | small+  | yes   |  33% |     96
micro-CT     |  12 | 100% | 160 x 160 x 128 |     2 |      6 |  8 / 3 | small+  | no    |  28% |     96
micro-CT     |  24 | 100% | 192 x 192 x 192 |     2 |      6 |  8 / 3 | small+  | no    |  30% |     96
micro-CT     |  80 | 100% | 256 x 256 x 256 |     3 |      7 |  8 / 3 | small+  | yes   |  42% |     96
retina OCT   |   6 | 100% | 20 x 192 x 224  |     2 |      7 | 16 / 1 | base    | yes   |  43% |     40
retina OCT   |  12 | 100% | 24 x 256 x 288  |     2 |      7 | 16 / 1 | base    | yes   |  44% |     48
retina OCT   |  24 | 100% | 32 x 320 x 320  |     2 |      8 | 16 / 1 | base    | no    |  37% |     64
retina OCT   |  80 | 100% | 40 x 512 x 448  |     3 |      8 | 16 / 1 | base    | yes   |  50% |     96
ultrasound   |   6 | 100% | 448 x 576       |     9 |      7 | 16 / 1 | small+  | no    |  29% |      9
ultrasound   |  12 | 100% | 448 x 576       |    19 |      7 | 16 / 1 | small+  | no    |  29% |     19
ultrasound   |  24 | 100% | 448 x 576       |    38 |      7 | 16 / 1 | small+  | no    |  29% |     38
ultrasound   |  80 | 100% | 448 x 576       |    43 |      7 | 16 / 1 | small+  | no    |  29% |     43
X-ray        |   6 | 100% | 1024 x 1024     |     2 |      9 | 16 / 1 | small   | no    |  47% |      2
X-ray        |  12 | 100% | 1536 x 1536     |     2 |      9 | 32 / 1 | base    | no    |  25% |      2
X-ray        |  24 | 100% | 2048 x 2048     |     2 |     10 | 32 / 1 | base    | no    |  31% |      2
X-ray        |  80 | 100% | 2048 x 2048     |     8 |     10 | 32 / 1 | base    | no    |  31% |      8
one slice    |   6 | 100% | 256 x 256       |    15 |      7 | 16 / 1 | small+  | no    |  24% |     15
one slice    |  12 | 100% | 256 x 256       |    15 |      7 | 16 / 1 | small+  | no    |  24% |     15
one slice    |  24 | 100% | 256 x 256       |    15 |      7 | 16 / 1 | small+  | no    |  24% |     15
one slice    |  80 | 100% | 256 x 256       |    15 |      7 | 16 / 1 | small+  | no    |  24% |     15
117 labels   |   6 |  50% | 96 x 80 x 80    |     2 |      5 |  8 / 3 | small+  | no    |  26% |     96
117 labels   |  12 |  60% | 112 x 112 x 112 |     2 |      5 |  8 / 3 | small+  | yes   |  33% |     96
117 labels   |  24 |  60% | 160 x 128 x 128 |     2 |      6 |  8 / 3 | small+  | no    |  27% |     96
117 labels   |  80 |  60% | 224 x 224 x 192 |     2 |      6 |  8 / 3 | small+  | no    |  30% |     96
"""


def row(name: str, gib: float, sizing: Sizing) -> str:
    """A plan as the table has it."""
    spec, trial = sizing.spec, sizing.trial
    patch = " x ".join(map(str, trial.patch))
    tokens = f"{spec.voxels_per_token} / {spec.slices_per_token}"
    again = "yes" if trial.checkpointing else "no"
    return (
        f"{name:<12} | {gib:>3} | {sizing.cnn_share:>4.0%} | {patch:<15} | {trial.batch:>5} | {spec.cnn.levels:>6} | "
        f"{tokens:>6} | {ENCODERS[spec.encoder]:<7} | {again:<5} | {sizing.stage_two.token_share:>4.0%} | "
        f"{sizing.recipe['stage1_slices']:>6}"
    )


def test_plans_are_those_of_the_table() -> None:
    planned = [row(name, gib, size(name, gib)) for name in FINGERPRINTS for gib in TARGETS]
    assert planned == TABLE.strip().splitlines()[1:]


UNLIKE = [
    ("hippocampus", 6),
    ("brain tumour", 6),
    ("whole body", 80),
    ("retina OCT", 6),
    ("X-ray", 6),
    ("117 labels", 12),
]
"""Plans with other patches, batches, levels, tokens and encoders."""
NAMES = [f"{name}, {gib} GiB" for name, gib in UNLIKE]
GRIDS = [plan for plan in UNLIKE if plan[0] not in ("whole body", "117 labels")]
"""Those of other grids; a step with real voxels of the largest takes too long."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gib"), UNLIKE, ids=NAMES)
def test_every_plan_runs_in_the_memory_that_was_counted(name: str, gib: int) -> None:
    """The network itself, at its full width, in steps and a prediction of full size, on fake tensors."""
    data, sizing = FINGERPRINTS[name].stats, size(name, gib)
    *training, predicting = first_peaks(
        sizing.spec,
        sizing.trial.patch,
        batch=sizing.trial.batch,
        channels=data.channels,
        classes=data.classes,
        slices=sizing.recipe["stage1_slices"],
        checkpointing=sizing.trial.checkpointing,
    )
    assert sizing.prediction == pytest.approx(predicting, rel=0.12)
    for cost, peak in zip((sizing.stage_one, sizing.stage_two), training, strict=True):
        assert cost is not None
        moments = 8 * cost.trained  # of the optimizer, from the second step on
        assert cost.peak - moments == pytest.approx(peak, rel=0.12)
        assert peak + moments < (0.95 * gib - 0.5) * 2**30  # a twentieth for the allocator's gaps


def reduced(spec: NetworkSpec) -> NetworkSpec:
    """The same grid of levels and tokens, as narrow as can be."""
    cnn = spec.cnn
    return replace(
        spec,
        encoder=ENCODER_CANDIDATES[-1],
        encoder_overrides={"embed_dim": 24, "depth": 2, "num_heads": 2},
        cnn=replace(cnn, widths=tuple(range(3, 3 + cnn.levels)), blocks=(1,) * cnn.levels,
                    decoder_blocks=(1,) * (cnn.levels - 1)),
        token_width=6,
        adapter_width=4,
        lora_rank=2,
    )  # fmt: skip


def shallow(patch: tuple[int, ...], cnn: CnnSpec) -> tuple[int, ...]:
    """The planned plane, as few slices deep as the CNN's strides allow."""
    *depth, height, width = patch
    return (*[min(side, max(4, cnn.cells[-1][0])) for side in depth], height, width)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gib"), GRIDS)
def test_every_grid_learns_and_predicts(name: str, gib: int) -> None:
    """Real steps of both stages on the planned plane, few slices deep, then a prediction."""
    data, sizing = FINGERPRINTS[name].stats, size(name, gib)
    spec, channels, classes = reduced(sizing.spec), data.channels, min(8, data.classes)
    patch = shallow(sizing.trial.patch, spec.cnn)
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
            # what the tokens pass through waits for the entrance, which begins at zero
            waits |= name.startswith(("neck", "encoder", "fusion")) and ".enter." not in name
            assert changed == value.requires_grad or waits, name
            assert value.isfinite().all(), name
    network.eval().decoder.deep_supervision = False
    with torch.inference_mode():
        logits = network(torch.randn(1, channels, *patch))
    assert logits.shape == (1, classes, *patch)
    assert logits.isfinite().all()
