"""The update of a step: what is skipped, what is remembered, and that the host never waits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dinomed3d.training.step.optimizer_step import OptimizerStep, check_finite
from tests.dinomed3d.training.conftest import LABELS, REGIONS
from tests.dinomed3d.training.trainers import trainer


def setting(*, scaled=False, fused=True):
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0) if scaled else None
    return weight, optimizer, OptimizerStep(optimizer, clip=1.0, scaler=scaler)


def step(weight, update, factor):
    weight.grad = None
    return update((weight * factor).sum())


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_an_update_is_clipping_and_a_step(scaled, fused):
    weight, _, update = setting(scaled=scaled, fused=fused)
    expected = torch.nn.Parameter(weight.detach().clone())
    optimizer = torch.optim.AdamW([expected], lr=0.1)
    for factor in (3.0, 0.01):
        loss, norm = step(weight, update, factor)
        assert norm.item() == pytest.approx(factor * 2**0.5)
        optimizer.zero_grad()
        (expected * factor).sum().backward()
        assert loss.item() == pytest.approx(factor * expected.sum().item())
        torch.nn.utils.clip_grad_norm_([expected], 1.0)
        optimizer.step()
        assert torch.allclose(weight, expected, atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_what_is_not_finite_ends_all_updates(factor, fused):
    weight, optimizer, update = setting(fused=fused)
    step(weight, update, 1.0)
    before = weight.detach().clone()
    moments = {k: v.clone() for k, v in optimizer.state[weight].items()}
    loss, _ = step(weight, update, factor)
    assert not loss.isfinite()
    step(weight, update, 1.0)
    assert torch.equal(weight, before)
    assert all(torch.equal(v, moments[k]) for k, v in optimizer.state[weight].items())


def test_a_gradient_alone_that_is_not_finite_ends_them_too():
    weight, _, update = setting()
    loss, norm = update((weight * 0.0).sum().sqrt())  # 0, with an infinite slope
    assert loss == 0 and not norm.isfinite()
    weight.grad = None
    update(weight.sum())
    assert weight.tolist() == [1.0, 2.0]


def test_with_float16_an_overflow_is_skipped_and_training_goes_on():
    weight, _, update = setting(scaled=True)
    update((weight * 0.0).sum().sqrt())
    assert weight.tolist() == [1.0, 2.0] and update.scaler.get_scale() == 2.0
    step(weight, update, 1.0)
    assert weight.tolist() != [1.0, 2.0]
    before = weight.detach().clone()
    step(weight, update, float("nan"))  # but a loss is never the scale's fault
    step(weight, update, 1.0)
    assert torch.equal(weight, before)


def test_the_first_step_is_named():
    fine = np.ones((4, 2), np.float32)
    check_finite([fine, fine], epoch=3, scaled=False)
    overflow = fine.copy()
    overflow[2, 1] = np.inf
    check_finite([fine, overflow], epoch=3, scaled=True)
    with pytest.raises(FloatingPointError, match="loss 1.0, gradient norm inf in epoch 3, step 2"):
        check_finite([fine, overflow], epoch=3, scaled=False)
    broken = overflow.copy()
    broken[1:] = np.nan
    with pytest.raises(FloatingPointError, match="loss nan, gradient norm nan in epoch 3, step 1"):
        check_finite([broken, overflow], epoch=3, scaled=True)


class Waits(TorchDispatchMode):
    """Records what would make the host wait for a GPU: values fetched, sizes that depend on values."""

    FETCHING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name.startswith("index") and any(
            t is not None and t.dtype in (torch.bool, torch.uint8)
            for t in (args[1] if isinstance(args[1], list | tuple) else [])
        )
        if name.lstrip("_").startswith(tuple(n.lstrip("_") for n in self.FETCHING)) or masks:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_what_waits_is_found():
    values = torch.tensor([0.0, 1.0])
    for fetch in (
        lambda: values.sum().item(),
        lambda: values.nonzero(),
        lambda: values[values > 0],
        lambda: bool(values.any()),
    ):
        with Waits() as waits:
            fetch()
        assert waits.found


@pytest.mark.parametrize("labels", [LABELS, REGIONS])
@pytest.mark.parametrize("stage", [1, 2])
def test_a_training_step_waits_for_nothing(nnunet, monkeypatch, stage, labels):
    if stage == 2:
        monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "0")
    t = trainer(labels=labels)
    t.on_train_start()
    t.on_train_epoch_start()
    outputs = []
    for _ in range(2):  # the first also makes the optimizer's moments
        batch = next(t.dataloader_train)
        with Waits() as waits:
            outputs.append(t.train_step(batch))
        assert waits.found == []
    with Waits() as waits:
        t.on_train_epoch_end(outputs)
    assert np.isfinite(t.logger.get_value("train_losses", step=-1))
