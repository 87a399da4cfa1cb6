"""The network of a trained model, built by its trainer; an adapter to nnU-Net."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dinomed3d.runtime.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from dinomed3d.inference.models.model import Model


def has_trainer(name: str) -> bool:
    """Whether a trainer of this name is installed."""
    return trainer_class(name).__name__ == name


def trainer_class(name: str) -> Any:
    """The trainer of this name, or nnU-Net's own: most trainers differ in training only.

    If a missing one builds another network, the weights do not fit and `build_network` refuses them.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        return recursive_find_trainer_class_by_name(name)
    except RuntimeError:
        return nnUNetTrainer


def build_network(model: Model, weights: Mapping[str, Any]) -> nn.Module:
    """Build the network of a model with the weights of one fold, every key accounted for.

    Raises:
        UserError: the weights do not fit.
    """
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    build = trainer_class(model.trainer).build_network_architecture
    manager = PlansManager(model.plans)
    configuration = manager.get_configuration(model.configuration)
    inputs = determine_num_input_channels(manager, configuration, model.dataset)
    heads = manager.get_label_manager(model.dataset).num_segmentation_heads
    if "plans_manager" in inspect.signature(build).parameters:
        network = build(manager, configuration, inputs, heads, enable_deep_supervision=False)
    else:  # a trainer written before nnU-Net 2.7
        network = build(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            inputs,
            heads,
            enable_deep_supervision=False,
        )
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"model {model.source}: the weights do not fit the network that the plan and the trainer "
            f"{model.trainer} describe ({first}); they belong to other plans or another version"
            + (
                ""
                if has_trainer(model.trainer)
                else ", or to that trainer, which is not installed here"
            )
        ) from error
    return network.eval()
