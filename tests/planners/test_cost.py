"""The counted cost model by hand, against the network's own parameters, and against the tracer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dinomed3d.networks import COMPONENTS, NetworkSpec, spec_for_patch
from examples.benchmarks.traced_steps import build, nnunet_loss, trace_predicting, trace_training
from planners.cost import StepCost, prediction, stage_one, stage_two
from planners.encoders import encoder_size
from planners.geometry import Geometry
from planners.layer_costs import ComponentCost
from planners.sizing import size_configuration
from tests.planners.fingerprints import FINGERPRINTS

SMALL, BASE = "vit_small_patch16_dinov3", "vit_base_patch16_dinov3"
PLUS, GIANT = "vit_small_plus_patch16_dinov3", "vit_giant_patch14_reg4_dinov2"
NARROW = {"embed_dim": 96, "depth": 4, "num_heads": 4}
PATCH = (8, 96, 96)
SPEC = NetworkSpec(levels=5, depth_kernels=(1, 3, 3, 3, 3))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and what it gets."""

    spec: NetworkSpec = SPEC
    patch: tuple[int, ...] = PATCH
    batch: int = 2
    channels: int = 1
    classes: int = 3
    slices: int = 8
    """Of the batch, in stage I."""
    checkpointing: bool = False
    regions: bool = False

    @property
    def network(self) -> dict[str, int]:
        return {"channels": self.channels, "classes": self.classes}

    def cost(self, stage: int) -> StepCost:
        """What the model counts for a step."""
        two = stage_two(
            self.spec, self.patch, batch=self.batch, checkpointing=self.checkpointing, **self.network
        )  # fmt: skip
        if stage == 2:
            return two
        return stage_one(
            self.spec, self.patch, slices=self.slices, resident=two.resident,
            checkpointing=self.checkpointing, **self.network,
        )  # fmt: skip


def with_levels(levels: int, **changes: Any) -> NetworkSpec:
    kernels = (1, 3, 3, 3, 3, 3, 3)[:levels]
    return replace(SPEC, levels=levels, depth_kernels=kernels, **changes)


def ablations() -> dict[str, tuple[str, ...]]:
    found = {
        "without " + part: tuple(p for p in COMPONENTS if p != part) for part in COMPONENTS[1:]
    }
    found["encoder alone"] = ("encoder",)
    found["encoder and detail"] = ("encoder", "detail")
    found["detail alone"] = ("detail",)
    return found


NETWORKS = {
    "3D": Case(),
    "2D": Case(spec=spec_for_patch((320, 256), (1, 1)), patch=(320, 256)),
    "a single slice": Case(patch=(1, 96, 96)),
    "four channels, 25 classes": Case(channels=4, classes=25),
    "one region": Case(classes=1),
    "DINOv2": Case(spec=replace(SPEC, encoder="vit_small_patch14_reg4_dinov2")),
    "SwiGLU": Case(spec=replace(SPEC, encoder=PLUS)),
    "packed SwiGLU": Case(spec=replace(SPEC, encoder=GIANT)),
    "no biases": Case(spec=replace(SPEC, encoder="vit_7b_patch16_dinov3")),
    "overridden sizes": Case(spec=replace(SPEC, encoder_overrides=NARROW)),
    "three tuned blocks": Case(spec=replace(SPEC, tuned_blocks=3)),
    "attention along depth": Case(spec=replace(SPEC, inter_slice="attention")),
    "two taps": Case(spec=replace(SPEC, taps=(3, 11))),
    "taps before the last block": Case(spec=replace(SPEC, taps=(2, 5))),
    "cascade": Case(spec=replace(SPEC, cascade_channels=2), channels=4),
    "one slice in the embedding": Case(spec=replace(SPEC, slices=1)),
    "five slices in the embedding": Case(spec=replace(SPEC, slices=5), channels=2),
    "widths": Case(
        spec=replace(
            SPEC, lora_rank=7, adapter_width=48, pyramid_width=200, detail_widths=(8, 24, 32, 40)
        )
    ),
    "a detail stream of one level": Case(spec=replace(SPEC, detail_widths=(12,))),
    "a detail stream of all levels": Case(spec=with_levels(3, detail_widths=(8, 16, 24))),
    "one supervised level": Case(spec=replace(SPEC, supervised_levels=1)),
    "wide kernels": Case(spec=replace(SPEC, depth_kernels=(1, 3, 5, 7, 1))),
    **{name: Case(spec=replace(SPEC, components=parts)) for name, parts in ablations().items()},
    **{
        f"{levels} levels, tokens of {token}": Case(
            spec=with_levels(levels, voxels_per_token=token), patch=(4, 128, 192)
        )
        for levels in (3, 4, 6, 7)
        for token in (4, 8, 16, 32)
    },
}


def numbers(module: nn.Module | None, *, learning: bool = False) -> int:
    if module is None:
        return 0
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not learning)


@pytest.mark.parametrize("case", NETWORKS.values(), ids=NETWORKS.keys())
def test_parameters_are_those_of_the_network(case: Case) -> None:
    with torch.device("meta"):
        network = build(case.spec, stage=2, **case.network)
    two = case.cost(2)
    assert two.resident == numbers(network)
    assert two.trained == numbers(network, learning=True)
    parts = two.components
    for name in ("neck", "fusion", "detail", "decoder"):
        module = getattr(network, name)
        assert (name in parts) == (module is not None)
        if module is not None:
            assert parts[name].parameters == parts[name].trained == numbers(module), name
    if network.encoder is None:
        return
    vit = network.encoder.encoder.vit
    assert parts["encoder"].parameters == numbers(vit.blocks)
    assert parts["encoder"].trained == numbers(vit.blocks, learning=True)
    assert parts["embedding"].parameters == numbers(vit) - numbers(vit.blocks)
    assert ("adapters" in parts) == (len(network.encoder.adapters) > 0)
    if "adapters" in parts:
        assert parts["adapters"].parameters == numbers(network.encoder.adapters)
        assert parts["adapters"].trained == numbers(network.encoder.adapters, learning=True)
    with torch.device("meta"):
        network = build(case.spec, stage=1, **case.network)
    one = case.cost(1)
    assert one.resident == numbers(network)
    assert one.trained == numbers(network, learning=True)
    assert one.components["head"].parameters == numbers(network.proxy)
    assert one.parameters == numbers(network.stage_one())


def test_a_linear_layer_by_hand() -> None:
    """3 -> 5 at 7 places: 15 weights, 5 biases, 210 operations forward and as many for each gradient."""
    cost = ComponentCost()
    cost.linear(3, 5, 7)
    assert (cost.parameters, cost.trained, cost.copies) == (20, 20, 30)
    assert (cost.flops, cost.backward_flops) == (210, 420)
    frozen = ComponentCost()
    frozen.linear(3, 5, 7, bias=False, trained=False)
    assert (frozen.parameters, frozen.trained, frozen.backward_flops) == (15, 0, 210)
    first = ComponentCost()
    first.linear(3, 5, 7, input_grad=False)
    assert first.backward_flops == 210


def test_the_detail_stream_by_hand() -> None:
    """One level of 2 channels, 3 x 3 x 3, on 1 channel, 4 x 32 x 16 voxels in each of 2 patches."""
    spec = replace(SPEC, detail_widths=(2,), depth_kernels=(3,) * 5)
    cost = stage_two(spec, (4, 32, 16), batch=2, channels=1, classes=2).components["detail"]
    voxels = 2 * 4 * 32 * 16
    first, second, norms = 27 * 2, 27 * 2 * 2, 2 * 2 * 2
    assert cost.parameters == first + second + norms
    assert cost.flops == 2 * (first + second) * voxels
    assert cost.backward_flops == 2 * (first + 2 * second) * voxels  # none for the image
    image, maps = (
        1,
        4 * 2,
    )  # half-precision values a voxel: each convolution's and each norm's result
    assert cost.saved == 2 * (image + maps) * voxels


def test_the_loss_by_hand() -> None:
    """2 classes: 4 bytes each for log-probabilities, probabilities and one-hot target; 8 for the label."""
    spec = replace(SPEC, supervised_levels=1)
    cost = stage_two(spec, (4, 32, 16), batch=1, channels=1, classes=2).components["loss"]
    assert cost.saved == (3 * 4 * 2 + 8) * (4 * 32 * 16)
    spec = replace(SPEC, supervised_levels=3)
    cost = stage_two(spec, (4, 32, 16), batch=1, channels=1, classes=2).components["loss"]
    assert cost.saved == (3 * 4 * 2 + 8) * (4 * 32 * 16) * (1 + 1 / 4 + 1 / 16)


@pytest.mark.parametrize("classes", [2, 5])
def test_nnunets_loss_keeps_what_was_worked_out_by_hand(classes: int) -> None:
    logits = torch.randn(2, classes, 4, 32, 16, requires_grad=True)
    target = torch.randint(0, classes, (2, 1, 4, 32, 16))
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        nnunet_loss()(logits, target)
    voxels = 2 * 4 * 32 * 16
    assert sum(kept.values()) == pytest.approx((3 * 4 * classes + 8) * voxels, rel=0.01)


def test_the_fullest_moment_is_the_largest_of_four() -> None:
    parts = {
        "encoder": ComponentCost(parameters=100, trained=10, saved=1000, copies=50),
        "decoder": ComponentCost(parameters=20, trained=20, saved=500, copies=6),
        "loss": ComponentCost(saved=200),
    }
    cost = StepCost(
        components=parts, inputs=64, passing=0, lifting=0, block=0, reentry=0, resident=130
    )  # fmt: skip
    assert cost.state == 4 * 130 + 8 * 30 + 56
    always = cost.state + 64
    assert cost.peak == always + 1700  # everything saved, at the end of the forward pass
    assert replace(cost, passing=7).peak == always + 1707
    # the decoder is done, its gradients are there; its activations and the loss are gone
    assert replace(cost, reentry=900, block=800).peak == always + 1000 + 4 * 20 + 900 + 800
    assert replace(cost, lifting=5000).peak == always + 1000 + 5000
    many = replace(parts["encoder"], trained=10000)
    learning = replace(cost, components=parts | {"encoder": many}, block=3)
    assert learning.peak == learning.state + 64 + 4 * 10020 + 3  # all gradients, the last block


def test_a_patch_is_counted_as_it_is_padded_inside() -> None:
    spec = replace(SPEC, voxels_per_token=8)  # 5 levels: multiples of 16
    g = Geometry.of(spec, (3, 100, 90), batch=2, channels=2, classes=3)
    assert (g.depth, g.height, g.width) == (3, 112, 96)
    assert (g.slices, g.patches, g.tokens) == (6, 14 * 12, 14 * 12 + 5)
    assert list(g.voxels) == [6 * 112 * 96 // 4**level for level in range(5)]
    assert g.enlarged == 6 * 3 * 2 * (14 * 16) * (12 * 16)  # slices, neighbours, channels, pixels
    flat = Geometry.of(spec, (100, 90), batch=2, channels=2, classes=3)
    assert (flat.slices, flat.depth) == (2, 1)


# peak memory of all plans is held against the tracer where their table is (test_plans_table.py)
PLANS = {
    f"{name}, {gib} GiB": (name, gib)
    for name, gib in [
        ("brain tumour", 12),
        ("cine heart", 24),
        ("X-ray", 6),
        ("117 labels", 12),
    ]
}


def planned(name: str, gib: float) -> Case:
    images = FINGERPRINTS[name].stats
    sizing = size_configuration(images, gib)
    return Case(
        spec=sizing.spec,
        patch=sizing.patch,
        batch=sizing.batch,
        channels=images.channels,
        classes=images.classes,
        slices=sizing.recipe["stage1_slices"],
        checkpointing=sizing.recipe["activation_checkpointing"],
    )


ODD = {
    "many channels on fine tokens": Case(
        spec=replace(SPEC, voxels_per_token=4, slices=5), channels=4
    ),
    "the same, checkpointed": Case(
        spec=replace(SPEC, voxels_per_token=4, slices=5), channels=4, checkpointing=True
    ),
    "attention along depth": Case(
        spec=replace(SPEC, inter_slice="attention"), patch=(24, 96, 96), checkpointing=True
    ),
    "all blocks tuned, attention along depth": Case(
        spec=replace(SPEC, inter_slice="attention", tuned_blocks=12)
    ),
    "cascade, regions": Case(spec=replace(SPEC, cascade_channels=2), channels=3, regions=True),
    "eight regions, checkpointed": Case(classes=8, regions=True, checkpointing=True),
    "SwiGLU": Case(spec=replace(SPEC, encoder=PLUS), batch=4, slices=32),
    "DINOv2, checkpointed": Case(
        spec=replace(SPEC, encoder="vit_base_patch14_reg4_dinov2"), checkpointing=True
    ),
    "2D": Case(
        spec=spec_for_patch((512, 512), (1, 1)), patch=(512, 512), batch=8, channels=3, classes=2
    ),
    "narrow encoder beside wide convolutions": Case(
        spec=replace(SPEC, encoder_overrides=NARROW, pyramid_width=256), slices=16
    ),
    "seven levels": Case(spec=with_levels(7, voxels_per_token=32), patch=(8, 256, 256), slices=16),
    "without low-rank updates": Case(
        spec=replace(SPEC, components=("encoder", "adapters", "detail")), checkpointing=True
    ),
    "without adapters": Case(spec=replace(SPEC, components=("encoder", "lora", "detail"))),
    "without detail": Case(spec=replace(SPEC, components=("encoder", "lora", "adapters"))),
    "a frozen encoder": Case(
        spec=replace(SPEC, components=("encoder", "detail")), patch=(16, 256, 256), batch=1
    ),
}
CONVOLUTIONS_ALONE = Case(spec=replace(SPEC, components=("detail",)), patch=(16, 256, 256), batch=1)


def check_against_trace(case: Case, stage: int, *, saved: float = 0.01) -> None:
    cost = case.cost(stage)
    traced = trace_training(
        case.spec,
        case.patch,
        stage=stage,
        batch=case.batch,
        slices=case.slices,
        checkpointing=case.checkpointing,
        regions=case.regions,
        **case.network,
    )
    assert cost.flops == pytest.approx(traced.flops, rel=0.03)
    # autocast's copies of weights are kept too, but for those of blocks that are computed again
    again = ("encoder", "adapters") if case.checkpointing else ()
    copies = sum(part.copies for name, part in cost.components.items() if name not in again)
    # what a loss over regions keeps besides, what a checkpointed block does, and that a first block
    # without low-rank updates has nothing to keep, is left out; all else is counted to the tensor
    plain = stage == 1 or "lora" in case.spec.components or "encoder" not in case.spec.components
    tolerance = saved if plain and not case.checkpointing and not case.regions else 0.08
    assert cost.saved + copies == pytest.approx(traced.saved, rel=tolerance)
    assert cost.peak == pytest.approx(traced.peak, rel=0.15)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_plain_network_takes_what_is_counted(stage: int) -> None:
    check_against_trace(Case(), stage)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_plans_take_what_is_counted(plan: tuple[str, float], stage: int) -> None:
    check_against_trace(planned(*plan), stage)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("case", ODD.values(), ids=ODD.keys())
def test_odd_networks_take_what_is_counted(case: Case, stage: int) -> None:
    check_against_trace(case, stage)


def test_a_network_without_an_encoder_takes_what_is_counted() -> None:
    check_against_trace(CONVOLUTIONS_ALONE, 2)


@pytest.mark.slow
def test_the_largest_encoder_that_can_be_named_takes_what_is_counted() -> None:
    case = Case(spec=replace(SPEC, encoder=GIANT), patch=(4, 64, 64))
    check_against_trace(case, 2, saved=0.03)  # copies of the first block's weights are not kept


PREDICTED = {
    **ODD,
    "no encoder": CONVOLUTIONS_ALONE,
    "giant": Case(spec=replace(SPEC, encoder=GIANT)),
    "118 classes": Case(classes=118),
    "tokens of 4": Case(spec=with_levels(3, voxels_per_token=4), patch=(6, 256, 256)),
    "tokens of 32": Case(spec=with_levels(7, voxels_per_token=32), patch=(6, 256, 256)),
    "a detail stream of one level": Case(spec=replace(SPEC, detail_widths=(12,))),
}


def check_prediction(case: Case) -> None:
    counted = prediction(case.spec, case.patch, **case.network)
    assert counted == pytest.approx(
        trace_predicting(case.spec, case.patch, **case.network), rel=0.15
    )


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_predicting_with_plans_takes_what_is_counted(plan: tuple[str, float]) -> None:
    check_prediction(planned(*plan))


@pytest.mark.slow
@pytest.mark.parametrize("case", PREDICTED.values(), ids=PREDICTED.keys())
def test_predicting_with_odd_networks_takes_what_is_counted(case: Case) -> None:
    check_prediction(case)


Change = Callable[[Case], Case]


def respec(**changes: Any) -> Change:
    return lambda case: replace(case, spec=replace(case.spec, **changes))


LARGER: dict[str, tuple[Change, set[int]]] = {
    "batch": (lambda case: replace(case, batch=3), {2}),
    "depth": (lambda case: replace(case, patch=(9, 96, 96)), {2}),
    "slices of stage I": (lambda case: replace(case, slices=9), {1}),
    "plane": (lambda case: replace(case, patch=(8, 96, 112)), {1, 2}),
    "channels": (lambda case: replace(case, channels=2), {1, 2}),
    "classes": (lambda case: replace(case, classes=4), {1, 2}),
    "slices per embedding": (respec(slices=5), {1, 2}),
    "encoder's width": (respec(encoder=BASE), {1, 2}),
    "encoder's depth": (respec(encoder_overrides={"depth": 13}), {1, 2}),
    "finer tokens": (respec(voxels_per_token=4), {1, 2}),
    "low rank": (respec(lora_rank=17), {2}),
    "adapters' width": (respec(adapter_width=80), {2}),
    "detail's width": (respec(detail_widths=(17, 64, 128)), {2}),
    "pyramid's width": (respec(pyramid_width=129), {2}),
    "kernels across slices": (respec(depth_kernels=(3, 3, 3, 3, 3)), {2}),
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("larger", "stages"), LARGER.values(), ids=LARGER.keys())
def test_more_of_anything_costs_more(larger: Change, stages: set[int], checkpointing: bool) -> None:
    case = Case(checkpointing=checkpointing)
    for stage in stages:
        less, more = case.cost(stage), larger(case).cost(stage)
        assert more.flops > less.flops
        assert more.peak > less.peak
        assert all(
            more.components[name].flops >= part.flops and more.components[name].saved >= part.saved
            for name, part in less.components.items()
        )
    if 2 in stages and larger is not LARGER["batch"][0]:
        sizes = [prediction(c.spec, c.patch, **c.network) for c in (case, larger(case))]
        assert sizes[1] > sizes[0]


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("encoder", [SMALL, PLUS, GIANT])
def test_checkpointing_saves_memory_for_arithmetic(stage: int, encoder: str) -> None:
    spec = replace(SPEC, encoder=encoder, tuned_blocks=encoder_size(encoder, {}).depth)
    case = Case(spec=spec, patch=(16, 128, 128), slices=32)
    kept, again = case.cost(stage), replace(case, checkpointing=True).cost(stage)
    assert again.peak < 0.8 * kept.peak
    assert again.saved < 0.5 * kept.saved
    inside = [name for name in ("encoder", "adapters") if name in kept.components]
    once_more = sum(kept.components[name].flops for name in inside)
    assert again.flops == pytest.approx(kept.flops + once_more)
    assert (again.parameters, again.trained) == (kept.parameters, kept.trained)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_frozen_blocks_cost_their_forward_pass_alone(checkpointing: bool) -> None:
    """Of twelve blocks four are tuned: a third of the activations, updates and modules."""
    some = Case(checkpointing=checkpointing).cost(2)
    every = Case(spec=replace(SPEC, tuned_blocks=12), checkpointing=checkpointing).cost(2)
    for name in ("encoder", "adapters"):
        assert 3 * some.components[name].trained == every.components[name].trained
        assert 3 * some.components[name].backward_flops == pytest.approx(
            every.components[name].backward_flops
        )
    assert some.components["encoder"].saved < 0.4 * every.components["encoder"].saved
    low_rank = every.components["encoder"].flops - some.components["encoder"].flops
    assert 0 < low_rank < 0.2 * some.components["encoder"].flops


def test_a_frozen_encoder_has_nothing_to_compute_again() -> None:
    case = Case(spec=replace(SPEC, components=("encoder", "detail")))
    kept, again = case.cost(2), replace(case, checkpointing=True).cost(2)
    assert (again.flops, again.peak) == (kept.flops, kept.peak)
    assert kept.components["encoder"].saved == kept.components["encoder"].backward_flops == 0


def test_without_an_encoder_nothing_of_it_is_counted() -> None:
    case = Case(spec=replace(SPEC, components=("detail",)))
    cost = case.cost(2)
    assert list(cost.components) == ["detail", "decoder", "loss"]
    assert cost.resident == cost.trained == cost.parameters
    for change in (
        respec(encoder=GIANT),
        respec(voxels_per_token=4),
        respec(slices=5),
        lambda case: replace(case, checkpointing=True),
    ):
        other = change(case)
        assert other.cost(2) == cost
        assert prediction(other.spec, case.patch, **case.network) == prediction(
            case.spec, case.patch, **case.network
        )
