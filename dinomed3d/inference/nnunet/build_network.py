"""The network of a trained model, built by its trainer; an adapter to nnU-Net."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dinomed3d.runtime.commands.library_warnings import importing_timm
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.weights_fit import misfits
from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory

if TYPE_CHECKING:
    from torch import nn

    from dinomed3d.inference.models.model import Model


OURS, NNUNETS_OWN = "DinoMed3DTrainer", "nnUNetTrainer"
"""The trainers that are always there; their networks are built without importing them."""


def has_trainer(name: str) -> bool:
    """Whether a trainer of this name is installed."""
    return name in (OURS, NNUNETS_OWN) or trainer_class(name).__name__ == name


def builder(name: str) -> Callable[..., nn.Module]:
    """The function with which a trainer builds its network.

    Importing nnU-Net's own trainer and ours takes seconds: they plot, log and augment.
    """
    if name == NNUNETS_OWN:
        return _as_planned
    if name == OURS:
        return _ours
    build: Callable[..., nn.Module] = trainer_class(name).build_network_architecture
    return build


def _ours(
    plans_manager: Any,
    configuration: Any,
    inputs: int,
    heads: int,
    enable_deep_supervision: bool,
) -> nn.Module:
    """The network that DinoMed3DTrainer builds."""
    with importing_timm():
        from dinomed3d.training.settings.nnunet_plan import planned_network

    return planned_network(configuration, inputs, heads, deep_supervision=enable_deep_supervision)


def _as_planned(
    plans_manager: Any,
    configuration: Any,
    inputs: int,
    heads: int,
    enable_deep_supervision: bool,
) -> nn.Module:
    """The network of a configuration.

    Source: nnunetv2 nnUNetTrainer.build_network_architecture.
    """
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    network: nn.Module = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        inputs,
        heads,
        deep_supervision=enable_deep_supervision,
    )
    return network


def trainer_class(name: str) -> Any:
    """The trainer of this name, or nnU-Net's own: most trainers differ in training only.

    If a missing one builds another network, the weights do not fit and `build_network` refuses them.

    Raises:
        UserError: the name is that of something else in nnU-Net's or our trainers' files.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        with importing_timm():  # trainers of nnU-Net that are looked at on the way import it
            found = recursive_find_trainer_class_by_name(name)
    except RuntimeError:
        return nnUNetTrainer
    except (TypeError, AssertionError):  # what it found is no class, or no trainer
        found = None
    if not (isinstance(found, type) and issubclass(found, nnUNetTrainer)):
        raise UserError(f"the model's trainer {name!r} is not the name of a trainer of nnU-Net")
    return found


def build_network(model: Model, weights: Mapping[str, Any]) -> nn.Module:
    """Build the network of a model with the weights of one fold, every key accounted for.

    It is built without memory first (PyTorch's device `meta`), so that plans that describe a network
    of another size, however large, are refused by the shapes of the weights.

    Raises:
        UserError: the plans describe no network that can be built, or the weights do not fit it.
    """
    import torch

    _check_count(model, weights)
    with torch.device("meta"):
        planned = _build(model).state_dict()
    _check_fit(model, planned, weights)
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and replaced
        network = _build(model)
    network.load_state_dict(weights)
    return network.eval()


def _build(model: Model) -> nn.Module:
    """The network that the model's trainer makes of its plans."""
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    build = builder(model.trainer)
    manager = PlansManager(model.plans)
    configuration = manager.get_configuration(model.configuration)
    inputs = determine_num_input_channels(manager, configuration, model.dataset)
    heads = manager.get_label_manager(model.dataset).num_segmentation_heads
    arguments: tuple[Any, ...] = (manager, configuration, inputs, heads)
    if "plans_manager" not in inspect.signature(build).parameters:
        # a trainer written before nnU-Net 2.7
        arguments = (
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            inputs,
            heads,
        )
    try:
        network: nn.Module = build(*arguments, enable_deep_supervision=False)
    except Exception as error:  # the plans are arguments of other packages' constructors
        if ran_out_of_memory(error):
            raise
        raise UserError(
            f"model {model.source}: its plan does not describe a network that can be built "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason'})"
        ) from error
    return network


def _check_count(model: Model, weights: Mapping[str, Any]) -> None:
    """Refuse plans with more layers than the checkpoint has tensors, which take for ever to build."""
    from dinomed3d.inference.models.validate_plans import configuration_of

    configuration = configuration_of(model.plans, model.configuration, str(model.source))
    arguments = configuration.get("architecture", {}).get("arch_kwargs", configuration)
    for key, value in arguments.items():
        numbers = value if isinstance(value, list) else [value]
        if key.startswith(("n_", "num_", "depth")) and not key.endswith("features"):
            total = sum(n for n in numbers if isinstance(n, int | float))
            if total > len(weights):
                raise UserError(
                    f"model {model.source}: its plan describes {total} layers ({key}), its weights have "
                    f"{len(weights)} tensors; they belong to other plans"
                )


def _check_fit(model: Model, planned: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Every tensor of the network must be among the weights, in its shape, and no other."""
    problems = misfits(planned, weights)
    if problems:
        raise UserError(
            f"model {model.source}: the weights do not fit the network that the plan and the trainer "
            f"{model.trainer} describe ({'; '.join(problems)}); they belong to other plans or another version"
            + (
                ""
                if has_trainer(model.trainer)
                else ", or to that trainer, which is not installed here"
            )
        )
