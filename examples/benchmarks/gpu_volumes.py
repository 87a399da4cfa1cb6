"""DINO-Med3D's steps as the planner sizes them: time, memory against the planner's count, compiled and not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from fingerprints import FINGERPRINTS, size
from gpu_parts import Bench
from torch import Tensor, nn
from traced_steps import build, nnunet_loss, step_inputs, step_loss

from dinomed3d.networks import CnnSpec, DinoMed3D, NetworkSpec
from dinomed3d.training.settings.recipe import Recipe
from dinomed3d.training.step.optimizer import build_optimizer, set_rates
from dinomed3d.training.step.optimizer_step import OptimizerStep
from dinomed3d.training.step.precision import autocast
from dinomed3d.training.step.wrap_ddp_compile import running_network
from planners.cost import stage_one, stage_two

PLANS = (("hippocampus", 6), ("brain tumour", 12), ("liver CT", 24), ("117 labels", 80))
"""Data of `fingerprints.py`, and the GiB that they are planned for."""
COMPILING_S = 45.0
"""Seconds to compile a step and run it, at least those that must be left."""
STAGES = (2, 1)

TINY_SPEC = NetworkSpec(
    encoder_overrides={"embed_dim": 24, "depth": 2, "num_heads": 2},
    taps=(0, 1),
    voxels_per_token=4,
    lora_rank=2,
    adapter_width=8,
    token_width=8,
    cnn=CnnSpec(
        widths=(4, 6, 8),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
        kernels=((3, 3, 3),) * 3,
        blocks=(1, 1, 1),
        decoder_blocks=(1, 1),
    ),
)
"""A network that a CPU trains in no time."""


def parity_spec() -> NetworkSpec:
    """The network that is compared with the CPU's: a ViT-S as planned for small volumes."""
    return size("hippocampus", 6, {"encoder": "vit_small_patch16_dinov3"}).spec


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A step to measure."""

    name: str
    spec: NetworkSpec
    patch: tuple[int, ...]
    batch: int
    slices: int
    """In a step of stage I."""
    channels: int
    classes: int
    counted: dict[int, float]
    """The planner's peak of each stage, bytes."""
    checkpointing: bool = False
    """Whether it recomputes activations."""


def plans(*, tiny: bool) -> list[Plan]:
    """Four, as the planner sizes them, or a tiny one."""
    if not tiny:
        return [_planned(name, gib) for name, gib in PLANS]
    spec, patch = TINY_SPEC, (4, 16, 16)
    sizes = {"channels": 1, "classes": 3}
    two = stage_two(spec, patch, batch=1, **sizes)
    one = stage_one(spec, patch, slices=2, resident=two.resident, **sizes)
    counted = {1: one.peak, 2: two.peak}
    return [Plan(name="tiny", spec=spec, patch=patch, batch=1, slices=2, counted=counted, **sizes)]


def _planned(name: str, gib: float) -> Plan:
    sizing = size(name, gib)
    assert sizing.stage_one is not None
    return Plan(
        name=f"{name}, {gib:g} GiB",
        spec=sizing.spec,
        patch=tuple(sizing.trial.patch),
        batch=sizing.trial.batch,
        slices=int(sizing.recipe["stage1_slices"]),
        channels=FINGERPRINTS[name].channels,
        classes=FINGERPRINTS[name].classes,
        checkpointing=sizing.trial.checkpointing,
        counted={1: sizing.stage_one.peak, 2: sizing.stage_two.peak},
    )


class Step:
    """A training step of one stage, as the trainer makes it."""

    def __init__(
        self, plan: Plan, stage: int, device: torch.device, *, backend: str | None
    ) -> None:
        torch.manual_seed(0)
        sizes = {"channels": plan.channels, "classes": plan.classes}
        network = build(plan.spec, stage=stage, checkpointing=plan.checkpointing, **sizes).to(
            device
        )
        self.device, self.network = device, network
        self.optimizer = build_optimizer(
            network, Recipe(weights="none"), stage=stage, device=device
        )
        self.update = OptimizerStep(self.optimizer, clip=1.0, scaler=None)
        shapes = step_inputs(
            network, plan.patch, stage=stage, batch=plan.batch, channels=plan.channels, slices=plan.slices
        )  # fmt: skip
        self.inputs = {
            name: torch.randn(shape, device=device)
            if kind.is_floating_point
            else torch.randint(0, plan.classes, shape, device=device).to(kind)
            for name, (shape, kind) in shapes.items()
        }
        running = running_network(network, stage=stage, device=device, backend=backend)
        self.loss = step_loss(_Running(network, running), stage=stage, loss=nnunet_loss())

    def __call__(self) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        set_rates(self.optimizer, 0.1)
        with autocast(self.device):
            loss = self.loss(**self.inputs)
        return self.update(loss)[0]


class _Running:
    """The network for `step_loss`, which calls what runs in its place, compiled or not."""

    def __init__(self, network: DinoMed3D, running: nn.Module) -> None:
        self.decoder, self.running = network.decoder, running

    def __call__(self, volume: Tensor) -> Any:
        return self.running(volume)

    def stage_one(self) -> Callable[..., Any]:
        return self.running


def eager_steps(bench: Bench) -> None:
    """Both stages of all plans, not compiled: time, launches, waits, peak memory and the planner's count."""
    for plan in plans(tiny=bench.tiny):
        for stage in STAGES:
            bench.attempt(
                f"{plan.name}, stage {stage}", lambda p=plan, s=stage: _eager(bench, p, s)
            )


def _eager(bench: Bench, plan: Plan, stage: int) -> dict[str, Any]:
    gauge, step = bench.gauge, Step(plan, stage, bench.device, backend=None)
    quick = {"warm": 0, "repeats": 1} if bench.tiny else {"warm": 2, "repeats": 5}
    found: dict[str, Any] = {"patch": list(plan.patch), "batch": plan.batch, "slices": plan.slices}
    found |= {"encoder": plan.spec.encoder, "ms": gauge.milliseconds(step, **quick)}
    found |= {
        "counted GiB": round(plan.counted[stage] / 2**30, 3),
        "finite": bool(step().isfinite()),
    }
    found |= bench.details(step)
    if isinstance(peak := found.get("GiB"), float):
        found["peak of counted"] = round(peak * 2**30 / plan.counted[stage], 3)
    if stage == 2:
        del step
        found["ms, CNN in channels_last_3d"] = _channels_last(bench, plan, quick)
    return found


def _channels_last(bench: Bench, plan: Plan, quick: dict[str, int]) -> Any:
    """The time of a step whose convolutions have their channels innermost, from their first step on."""
    step = Step(plan, 2, bench.device, backend=None)
    for part in (step.network.detail, step.network.decoder):
        part.to(memory_format=torch.channels_last_3d)
    return bench.gauge.milliseconds(step, **quick)


def compiled_steps(bench: Bench) -> None:
    """The same compiled, as many as there is time for: time, seconds to compile, and breaks of the graph."""
    for stage in STAGES[1 if bench.tiny else 0 :]:
        for plan in plans(tiny=bench.tiny):
            name = f"{plan.name}, stage {stage}"
            if bench.left < COMPILING_S and not bench.tiny:
                bench.note(name, "no time")
                continue
            bench.attempt(name, lambda p=plan, s=stage: _compiled(bench, p, s))


def _compiled(bench: Bench, plan: Plan, stage: int) -> dict[str, Any]:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    backend = "eager" if bench.tiny else "inductor"
    step = Step(plan, stage, bench.device, backend=backend)
    start = time.perf_counter()
    step()
    bench.gauge.wait()
    first = round(time.perf_counter() - start, 1)
    quick = {"warm": 0, "repeats": 1} if bench.tiny else {"warm": 2, "repeats": 5}
    return {
        "ms": bench.gauge.milliseconds(step, **quick),
        "peak GiB": bench.gauge.peak_gib(step),
        "first step s": first,
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": sum(counters["graph_break"].values()),
    }
