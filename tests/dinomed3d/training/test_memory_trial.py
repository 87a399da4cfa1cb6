"""A step of stage II before training: what follows if it does not fit, and that it leaves no trace."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

from dinomed3d.runtime.errors import UserError
from dinomed3d.training.memory_trial import real_step, settle_memory
from dinomed3d.training.step import trial_step
from dinomed3d.training.step.trial_step import try_step, without_exchange
from dinomed3d.training.trainer import DinoMed3DTrainer
from tests.dinomed3d.training.conftest import dataset_json, plans

GIB = 2**30


class Memory:
    """A device on which a step fits or not, and what was tried on it."""

    def __init__(self, *, needed: dict[bool, float], has: float, error: Exception | None = None):
        self.needed, self.has = needed, has
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.tried: list[bool] = []

    def step(self, checkpointing: bool) -> int:
        self.tried.append(checkpointing)
        if self.needed[checkpointing] > self.has:
            raise self.error
        return int(self.needed[checkpointing] * GIB)


NEEDED = {False: 18.0, True: 7.0}


@pytest.mark.parametrize(
    ("has", "planned", "tried", "fitting"),
    [
        (24, False, [False], (False, 18)),
        (12, False, [False, True], (True, 7)),
        (12, True, [True], (True, 7)),  # what a plan says is not taken back
        (24, True, [True], (True, 7)),
        (6, False, [False, True], None),
        (6, True, [True], None),
    ],
)
def test_activation_checkpointing_is_tried_where_a_step_does_not_fit(has, planned, tried, fitting):
    memory = Memory(needed=NEEDED, has=has)
    found = try_step(memory.step, checkpointing=planned)
    assert memory.tried == tried
    assert (None if found is None else (found.checkpointing, found.peak // GIB)) == fitting


def test_all_processes_do_what_the_fullest_needs(monkeypatch):
    """Another process fails where this one succeeds, and has the higher peak."""
    others = iter([None, 9 * GIB])
    monkeypatch.setattr(trial_step, "gathered", lambda value: [value, next(others)])
    found = try_step(Memory(needed=NEEDED, has=24).step, checkpointing=False)
    assert found is not None and (found.checkpointing, found.peak) == (True, 9 * GIB)


def test_other_errors_are_not_taken_for_too_little_memory():
    memory = Memory(needed=NEEDED, has=1, error=RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        try_step(memory.step, checkpointing=False)


def test_nothing_is_tried_twice_without_an_encoder_to_recompute():
    memory = Memory(needed=NEEDED, has=1)
    assert try_step(memory.step, checkpointing=False, can_recompute=False) is None
    assert memory.tried == [False]


@pytest.fixture
def ready(nnunet) -> DinoMed3DTrainer:
    """A trainer with its loaders, before its first epoch."""
    t = DinoMed3DTrainer(plans(), "3d_fullres", 0, dataset_json(), torch.device("cpu"))
    t.initialize()
    t.dataloader_train, t.dataloader_val = t.get_dataloaders()
    return t


def test_a_trainer_turns_it_on_and_says_so(ready, capsys):
    settle_memory(ready, Memory(needed=NEEDED, has=12).step)
    assert ready.recipe.activation_checkpointing
    assert ready.network.encoder.encoder.checkpointing
    assert "7.00 GiB" in (said := capsys.readouterr().out) and "activation checkpointing" in said


def test_a_plan_that_never_fits_is_refused_with_the_command_that_plans(ready, monkeypatch):
    monkeypatch.setattr("dinomed3d.training.memory_trial.free_bytes", lambda: 11.9 * GIB)
    with pytest.raises(
        UserError, match="-d 901 .*-gpu_memory_target 11,.*-p DinoMed3DPlans"
    ) as caught:
        settle_memory(ready, Memory(needed=NEEDED, has=6).step)
    assert "6 x 20 x 16" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("fails", [False, True])
def test_a_real_step_leaves_no_trace(ready, monkeypatch, fails):
    """Weights, what learns, modes, gradients, optimizer and random numbers are those of before."""
    weights = deepcopy(ready.network.state_dict())
    learning = [p.requires_grad for p in ready.network.parameters()]
    modes = [m.training for m in ready.network.modules()]
    torch.manual_seed(3), np.random.seed(3)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(3), np.random.seed(3)
    depths = []
    forward = ready.network.forward

    def watched(volume, **halo):
        depths.append((volume.shape, ready.network.encoder.encoder.checkpointing))
        if fails:
            torch.rand(5)
            raise torch.OutOfMemoryError("out of memory")
        return forward(volume, **halo)

    monkeypatch.setattr(ready.network, "forward", watched)
    found = try_step(lambda c: real_step(ready, c), checkpointing=False)
    assert (found is None) == fails
    assert depths == [((2, 1, 8, 20, 16), c) for c in ([False, True] if fails else [False])]
    assert (torch.rand(1), np.random.rand()) == expected
    assert all(torch.equal(v, weights[k]) for k, v in ready.network.state_dict().items())
    assert [p.requires_grad for p in ready.network.parameters()] == learning
    assert [m.training for m in ready.network.modules()] == modes
    assert all(p.grad is None for p in ready.network.parameters())
    assert not ready.optimizer.state and not ready.network.encoder.encoder.checkpointing


def test_moments_and_gradients_of_what_learns_are_there_during_the_step(ready, monkeypatch):
    made = []
    zeros = torch.zeros_like
    monkeypatch.setattr(torch, "zeros_like", lambda p, **k: made.append(p.numel()) or zeros(p, **k))
    clipped = []
    monkeypatch.setattr(
        torch.nn.utils,
        "clip_grad_norm_",
        lambda ps, norm: clipped.extend(p.grad.numel() for p in ps),
    )
    real_step(ready, False)
    ready.network.begin_stage(2)
    numbers = [p.numel() for p in ready.network.parameters() if p.requires_grad]
    assert clipped == numbers
    assert made[: 2 * len(numbers)] == [n for n in numbers for _ in range(2)]


def test_the_copied_loss_asks_no_other_process(ready):
    ready.loss.loss.dc.ddp = True
    assert not without_exchange(ready.loss).loss.dc.ddp
    assert ready.loss.loss.dc.ddp


def test_on_a_cpu_nothing_is_tried_and_the_log_says_so(ready, capsys, monkeypatch):
    monkeypatch.setattr(
        "dinomed3d.training.memory_trial.real_step", lambda *_: pytest.fail("tried")
    )
    settle_memory(ready)
    assert "not tried on cpu" in capsys.readouterr().out
