"""Network and recipe in an nnU-Net plan."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from dinomed3d.networks import CnnSpec, NetworkSpec, slice_step, token_side
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.settings.environment import spec_from

NETWORK = "dinomed3d.networks.network.build_network"
"""The network's dotted path in our plans; importable, so that stock trainers can build it too."""
RECIPE = "dinomed3d_recipe"
"""Key of a plan's configuration that holds a recipe."""
DECISIONS = "dinomed3d_decisions"
"""Key of a plan's configuration that holds the planner's decisions with their reasons."""
MEMORY_TARGET = "dinomed3d_memory_target_gib"
"""Key of a plan's configuration that holds the memory that it was sized for, GiB."""


def plan_spec(configuration: ConfigurationManager) -> NetworkSpec:
    """The network that a plan names, or for a stock plan its CNN with tokens sized by the patch.

    Raises:
        UserError: a plan of another version, or one edited into something that cannot be trained.
    """
    check_configuration(configuration.configuration)
    if configuration.network_arch_class_name == NETWORK:
        return NetworkSpec.from_arch_kwargs(configuration.network_arch_init_kwargs)
    if configuration.network_arch_class_name.startswith("dinomed3d."):
        raise UserError(
            f"plan: unknown network {configuration.network_arch_class_name} (this version builds {NETWORK}); the "
            "plan was written by another version of dinomed3d: install that version, or plan again"
        )
    patch, spacing = configuration.patch_size, configuration.spacing
    token = token_side(*patch[-2:])
    return NetworkSpec(
        cnn=CnnSpec.from_nnunet(
            configuration.network_arch_class_name, configuration.network_arch_init_kwargs
        ),
        voxels_per_token=token,
        slices_per_token=slice_step(spacing, token),
        slices=1 if len(patch) == 2 else 3,
    )


def planned_network(
    configuration: ConfigurationManager, inputs: int, heads: int, *, deep_supervision: bool
) -> nn.Module:
    """The network of a plan with a random encoder, whose weights are loaded afterwards.

    Args:
        configuration: of our plans, or of stock ones.
        inputs: channels of a volume.
        heads: channels of the logits.
        deep_supervision: whether logits of all levels are returned.

    Raises:
        UserError: as `plan_spec`.
    """
    network = get_network_from_plans(
        NETWORK, plan_spec(configuration).to_arch_kwargs(), [], inputs, heads, allow_init=False
    )
    # set here, because `build_network` warns trainers that ask it for this and load no weights
    network.decoder.deep_supervision = deep_supervision
    return network


def with_cascade_channels(
    spec: NetworkSpec, configuration: ConfigurationManager, dataset_json: Mapping[str, Any]
) -> NetworkSpec:
    """Add the channels in which nnU-Net's cascade passes on the previous configuration's labels."""
    if configuration.previous_stage_name is None:
        return spec
    labels = LabelManager(dataset_json["labels"], dataset_json.get("regions_class_order"))
    return replace(spec, cascade_channels=len(labels.foreground_labels))


def check_configuration(configuration: Mapping[str, Any]) -> None:
    """Refuse a configuration that was edited into something that cannot be trained.

    Args:
        configuration: of a plan, inheritance resolved.

    Raises:
        UserError: an entry that is missing or has a wrong type or value.
    """

    def numbers(key: str, *, whole: bool) -> list[Any]:
        value = configuration.get(key)
        kinds = (int,) if whole else (int, float)
        good = isinstance(value, list | tuple) and len(value) in (2, 3)
        if not good or any(type(v) not in kinds or not 0 < v < math.inf for v in value or ()):
            raise UserError(
                f"plan: {key!r} must be 2 or 3 positive {'whole ' if whole else ''}numbers, got {value!r}; "
                "correct the plan or plan again"
            )
        return list(value or ())

    patch, spacing = numbers("patch_size", whole=True), numbers("spacing", whole=False)
    if len(patch) != len(spacing):
        raise UserError(
            f"plan: 'patch_size' {patch} and 'spacing' {spacing} must have the same number of axes; correct the plan "
            "or plan again"
        )
    batch = configuration.get("batch_size")
    if type(batch) is not int or batch < 1:
        raise UserError(
            f"plan: 'batch_size' must be a positive whole number, got {batch!r}; correct the plan or plan again"
        )
    architecture = configuration.get("architecture")
    if not (
        isinstance(architecture, dict)
        and isinstance(architecture.get("network_class_name"), str)
        and isinstance(architecture.get("arch_kwargs"), dict)
    ):
        raise UserError(
            "plan: 'architecture' must be an object with 'network_class_name' and 'arch_kwargs', got "
            f"{architecture!r}; plan again"
        )
    if not isinstance(configuration.get("batch_dice"), bool):
        raise UserError(
            f"plan: 'batch_dice' must be true or false, got {configuration.get('batch_dice')!r}; correct the plan or "
            "plan again"
        )
    recipe = configuration.get(RECIPE, {})
    if not isinstance(recipe, dict):
        raise UserError(f"plan: {RECIPE!r} must be a JSON object, got {recipe!r}; plan again")


def network_entry(spec: NetworkSpec) -> dict[str, Any]:
    """The "architecture" entry of a configuration in nnU-Net's plans."""
    return {
        "network_class_name": NETWORK,
        "arch_kwargs": spec.to_arch_kwargs(),
        "_kw_requires_import": [],
    }


def write_spec(plans: dict[str, Any], configuration: str, spec: NetworkSpec) -> None:
    """Put a network into a plan's configuration, in place."""
    plans["configurations"][configuration]["architecture"] = network_entry(spec)


def spec_difference(stored: NetworkSpec, asked: NetworkSpec) -> str:
    """The fields that differ, for messages."""
    a, b = stored.to_arch_kwargs(), asked.to_arch_kwargs()
    return ", ".join(f"{k}: {a[k]!r} there, {b[k]!r} here" for k in a if a[k] != b[k])


def stored_spec(fields: Mapping[str, Any], built: NetworkSpec | None, name: str) -> NetworkSpec:
    """The network of a checkpoint; environment and built network must agree with it.

    Args:
        fields: of the spec in the checkpoint.
        built: spec of the network that is built already, if any.
        name: of the checkpoint, for messages.

    Raises:
        UserError: one of them differs.
    """
    stored = NetworkSpec.from_arch_kwargs(fields)
    asked = spec_from(stored, os.environ)
    if asked != stored:
        raise UserError(
            f"DinoMed3DTrainer: {name} holds another network than the environment sets "
            f"({spec_difference(stored, asked)}); unset these DINOMED3D_ variables"
        )
    if built is not None and stored != built:
        raise UserError(
            f"DinoMed3DTrainer: {name} holds another network ({spec_difference(stored, built)})"
        )
    return stored


def check_other_folds(folder: Path, configuration: str, fold: int | str, spec: NetworkSpec) -> None:
    """Refuse a network that differs from the other folds': all share the plans.json of the model.

    Args:
        folder: of the model: trainer, plans and configuration.
        configuration: its name in the plan.
        fold: that is about to be trained.
        spec: its network.

    Raises:
        UserError: another fold was trained with another network.
    """
    others = [
        f.name
        for f in sorted(folder.glob("fold_*"))
        if f.name != f"fold_{fold}" and any(f.glob("checkpoint_*.pth"))
    ]
    if not others or not (folder / "plans.json").is_file():
        return
    stored = plan_spec(PlansManager(str(folder / "plans.json")).get_configuration(configuration))
    if stored != spec:
        raise UserError(
            f"DinoMed3DTrainer: {', '.join(others)} in {folder} were trained with another network than fold "
            f"{fold} would have ({spec_difference(stored, spec)}), but all folds share one plan. Unset the "
            "DINOMED3D_ variables that differ, or move the folder away"
        )
