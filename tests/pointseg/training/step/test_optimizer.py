"""Optimiser groups and the one-cycle schedule."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from pointseg.config.optimizer import OptimizerSpec
from pointseg.training.step.optimizer import build_optimizer, build_scheduler

SPEC = OptimizerSpec()


def network():
    return nn.ModuleDict(
        {
            "stem": nn.Linear(3, 4),
            "block0": nn.Linear(4, 4),
            "enc": nn.ModuleDict({"block1": nn.LayerNorm(4), "down": nn.Linear(4, 4)}),
        }
    )


def rates(spec, steps, module=None):
    """Of each group in each step."""
    optimizer = build_optimizer(module or network(), spec)
    scheduler = build_scheduler(optimizer, spec, steps=steps)
    found = [scheduler.get_last_lr()]
    for _ in range(steps - 1):
        optimizer.step()
        scheduler.step()
        found.append(scheduler.get_last_lr())
    return found


def test_blocks_have_a_group_of_their_own():
    module = network()
    others, blocks = build_optimizer(module, SPEC).param_groups
    assert [id(p) for p in others["params"]] == [
        id(p) for n in ("stem", "enc.down") for p in module.get_submodule(n).parameters()
    ]
    assert [id(p) for p in blocks["params"]] == [
        id(p) for n in ("block0", "enc.block1") for p in module.get_submodule(n).parameters()
    ]
    assert (others["lr"], blocks["lr"]) == (6e-3, pytest.approx(6e-4))
    assert others["weight_decay"] == blocks["weight_decay"] == 0.05  # norms and biases included


def test_empty_groups_and_frozen_parameters_are_left_out():
    (group,) = build_optimizer(nn.Linear(2, 2), SPEC).param_groups
    assert len(group["params"]) == 2 and group["lr"] == 6e-3
    module = network()
    module["block0"].requires_grad_(False)
    assert len(build_optimizer(module, SPEC).param_groups[1]["params"]) == 2
    with pytest.raises(ValueError, match="require a gradient"):
        build_optimizer(module.requires_grad_(False), SPEC)


def test_kinds():
    adamw = build_optimizer(network(), SPEC)
    assert isinstance(adamw, torch.optim.AdamW) and adamw.defaults["betas"] == (0.9, 0.999)
    sgd = build_optimizer(network(), replace(SPEC, name="sgd"))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.9, True)


def test_schedule_by_hand():
    steps = 101  # with 20 % rising: the top is at step 0.2 * 101 - 1
    found = rates(replace(SPEC, warmup_fraction=0.2), steps)
    assert found[0] == pytest.approx([6e-4, 6e-5])  # largest / div
    assert max(first for first, _ in found) == pytest.approx(6e-3, rel=1e-3)
    assert found[-1] == pytest.approx([6e-7, 6e-8])  # first / final div
    for first, second in found:
        assert second == pytest.approx(first / 10)
    top = 0.2 * steps - 1
    rising, falling = 7 / top, (60 - top) / (steps - 1 - top)
    assert found[7][0] == pytest.approx(6e-3 + (6e-4 - 6e-3) * (1 + math.cos(math.pi * rising)) / 2)
    assert found[60][0] == pytest.approx(
        6e-7 + (6e-3 - 6e-7) * (1 + math.cos(math.pi * falling)) / 2
    )


def test_momentum_is_cycled_as_in_the_references_or_kept():
    for name, read in (("sgd", lambda g: g["momentum"]), ("adamw", lambda g: g["betas"][0])):
        optimizer = build_optimizer(network(), replace(SPEC, name=name))
        scheduler = build_scheduler(optimizer, SPEC, steps=20)
        seen = [read(optimizer.param_groups[0])]
        for _ in range(19):
            optimizer.step()
            scheduler.step()
            seen.append(read(optimizer.param_groups[0]))
        assert min(seen) == pytest.approx(0.85, abs=1e-3) and seen[-1] == pytest.approx(0.95)
        kept = replace(SPEC, name=name, cycle_momentum=False)
        optimizer = build_optimizer(network(), kept)
        build_scheduler(optimizer, kept, steps=20)
        assert read(optimizer.param_groups[0]) == 0.9


@pytest.mark.parametrize("warmup", [0.0, 0.04, 0.05, 0.1, 0.5, 1.0, 0, 1])
def test_runs_of_any_length(warmup):
    spec = replace(SPEC, warmup_fraction=warmup)
    for steps in [1, 2, 3, 10, 20, 25, 40, 60]:
        found = [rate for step in rates(spec, steps) for rate in step]
        assert all(6e-8 * 0.999 <= rate <= 6e-3 * 1.001 for rate in found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "lion"),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("block_lr_scale", -1.0),
        ("div", 0.0),
        ("final_div", float("inf")),
        ("weight_decay", -0.1),
        ("warmup_fraction", 1.1),
        ("momentum", 1.0),
        ("clip_norm", 0.0),
    ],
)
def test_every_number_is_checked(name, value):
    with pytest.raises(ValueError, match=f"OptimizerSpec: '{name}' must be"):
        replace(SPEC, **{name: value})


def test_refused():
    with pytest.raises(ValueError, match="'nesterov' must be false"):
        OptimizerSpec(momentum=0.0)
    with pytest.raises(ValueError, match="'steps' must be >= 1"):
        build_scheduler(build_optimizer(network(), SPEC), SPEC, steps=0)
