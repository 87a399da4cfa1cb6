"""Plans that describe no network, or another one than the weights', are refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as nnunet_trainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker.worker import Worker
from dinomed3d.inference.models.model import fold_weights, open_model
from dinomed3d.inference.nnunet import build_network as module
from dinomed3d.inference.nnunet.build_network import (
    NNUNETS_OWN,
    OURS,
    build_network,
    builder,
    has_trainer,
    trainer_class,
)
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.models.write_model import tiny_plans, write_model


def worker_of(folder: Path, change: Any) -> Worker:
    """A worker with a model whose configuration was changed by hand."""
    model = write_model(folder)
    plans = json.loads((model / "plans.json").read_text())
    change(plans, plans["configurations"]["3d_fullres"])
    (model / "plans.json").write_text(json.dumps(plans))
    spec = PredictSpec(source="i", out=str(folder / "o"), model=str(model), device="cpu")
    return Worker(open_model(model), spec)


def argument(**changed: Any) -> Any:
    """Changes arguments of the network."""

    def change(plans: dict[str, Any], configuration: dict[str, Any]) -> None:
        configuration["architecture"]["arch_kwargs"].update(changed)

    return change


def entry(**changed: Any) -> Any:
    """Changes entries of the configuration."""
    return lambda plans, configuration: configuration.update(changed)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (argument(wings=2), "does not describe a network .*unexpected keyword argument 'wings'"),
        (argument(features_per_stage="many"), "does not describe a network"),
        (argument(n_stages=-1), "does not describe a network"),
        # without memory for it: the shapes are compared before anything is allocated
        (argument(features_per_stage=[10**5, 10**6]), r"do not fit the network.*\[4, .*\[100000,"),
        (argument(n_conv_per_stage=[10**7, 1]), "describes 10000001 layers"),
        (argument(n_conv_per_stage=[2, 1]), "do not fit the network.*are missing"),
        (entry(patch_size=[10**6, 10**6, 10**6]), "more memory than there is"),
        (entry(patch_size=[7, 5, 3]), "does not fit its network"),
        (lambda plans, _: plans.update(label_manager="join"), "label manager 'join'"),
    ],
)
def test_a_plan_that_does_not_fit_is_one_sentence(tmp_path: Path, change: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        worker_of(tmp_path, change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["torch", "os", "join", "nn"])
def test_a_trainer_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"trainer '{name}'"):
        trainer_class(name)


@pytest.mark.parametrize("name", [OURS, NNUNETS_OWN])
def test_ours_and_nnunets_own_are_built_without_their_trainers(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Their imports take seconds, before the first case."""
    monkeypatch.setattr(module, "trainer_class", lambda name: pytest.fail(f"{name} was imported"))
    assert has_trainer(name)
    plans = PlansManager(tiny_plans())
    configuration = plans.get_configuration("3d_fullres")
    network = builder(name)(plans, configuration, 1, 3, enable_deep_supervision=False).eval()
    by_trainer = nnunet_trainer(name).build_network_architecture(
        plans, configuration, 1, 3, enable_deep_supervision=False
    )
    shapes = {key: value.shape for key, value in by_trainer.state_dict().items()}
    assert {key: value.shape for key, value in network.state_dict().items()} == shapes
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, *configuration.patch_size)).shape[1] == 3  # no list


def test_the_network_has_exactly_the_weights(tmp_path: Path) -> None:
    model = open_model(write_model(tmp_path))
    weights = fold_weights(model, "0")
    network = build_network(model, weights)
    state = network.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], weights[name]) for name in state)
    assert not any(tensor.is_meta for tensor in state.values())
    with pytest.raises(UserError, match="1 are unexpected, such as more"):
        build_network(model, {**weights, "more": torch.zeros(1)})
