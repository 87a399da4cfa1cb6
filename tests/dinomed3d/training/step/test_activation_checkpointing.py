"""Activation checkpointing: the same loss and gradients, and less kept for the backward pass."""

from __future__ import annotations

import pytest
import torch

from dinomed3d.training.settings.environment import recipe_from
from dinomed3d.training.settings.recipe import Recipe
from tests.dinomed3d.training.conftest import plans
from tests.dinomed3d.training.trainers import trainer

OVERRIDES = (
    '{"embed_dim": 24, "depth": 4, "num_heads": 2, "init_values": 1.0, "drop_path_rate": 0.2}'
)


def loss_and_gradients(t, stage):
    """Of one fixed batch; and how many bytes autograd has kept in between."""
    t.stage = stage
    t.optimizer, _ = t.configure_optimizers()
    t.running = t.network.stage_one() if stage == 1 else t.network
    t.network.train()
    torch.manual_seed(1)
    if stage == 1:  # slices with their neighbours
        data = torch.randn(12, 3, 20, 16)
        target = [(torch.rand(12, 1, 20, 16) > 0.5).float()]
    else:  # patches with a halo
        data = torch.randn(2, 1, 8, 20, 16)
        target = [(torch.rand(2, 1, 6, -(-20 // s), -(-16 // s)) > 0.5).float() for s in (1, 2)]
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = t._loss(data, target)
    loss.backward()
    parameters = t.network.named_parameters()
    return (
        loss.detach(),
        {n: p.grad for n, p in parameters if p.grad is not None},
        sum(kept.values()),
    )


@pytest.mark.parametrize("stage", [1, 2])
def test_same_gradients_from_less(nnunet, monkeypatch, stage):
    monkeypatch.setenv(
        "DINOMED3D_ENCODER_OVERRIDES", OVERRIDES
    )  # random depth: drawn once, not twice
    plan = plans()
    plan["configurations"]["3d_fullres"]["dinomed3d_recipe"] = {"activation_checkpointing": True}
    monkeypatch.setattr("tests.dinomed3d.training.trainers.plans", lambda: plan)
    checkpointed = trainer()
    checkpointed.initialize()
    del plan["configurations"]["3d_fullres"]["dinomed3d_recipe"]
    kept_all = trainer(fold=1)
    kept_all.initialize()
    assert checkpointed.network.state_dict().keys() == kept_all.network.state_dict().keys()
    kept_all.network.load_state_dict(checkpointed.network.state_dict())
    loss, gradients, less = loss_and_gradients(checkpointed, stage)
    expected_loss, expected, more = loss_and_gradients(kept_all, stage)
    assert torch.equal(loss, expected_loss)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, expected[name]), name
    assert less < 0.75 * more


def test_without_gradients_nothing_is_run_twice(tiny_encoder, monkeypatch):
    tiny_encoder.checkpointing = True
    monkeypatch.setattr("dinomed3d.lifting.dino.checkpoint", None)
    with torch.no_grad():
        assert len(tiny_encoder.maps(torch.randn(1, 3, 32, 32))) == 4


def test_the_plan_decides():
    assert Recipe().activation_checkpointing is False
    assert recipe_from({"activation_checkpointing": True}, {}).activation_checkpointing is True
