"""What a plan's configurations cost, computed from the plan's file and its dataset.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.suggestion import suggestion
from dinomed3d.training.settings.environment import recipe_from, spec_from
from dinomed3d.training.settings.nnunet_plan import (
    DECISIONS,
    MEMORY_TARGET,
    NETWORK,
    RECIPE,
    plan_spec,
    with_cascade_channels,
)
from planners.cost import prediction, stage_one, stage_two
from planners.cost.geometry import tokens_of
from planners.explain.explanation import Explanation


def explain_plan(path: Path, configuration: str | None) -> list[Explanation]:
    """The cost of a plan's configurations, all or one.

    Args:
        path: nnU-Net's plan; dataset.json must be in the same folder.
        configuration: "3d_fullres", or None for all.

    Raises:
        UserError: not a plan, or one that no network can be built from.
    """
    plans, dataset = _read(path, "plan"), _read(path.with_name("dataset.json"), "dataset")
    names = list(plans.get("configurations") or {})
    if not names:
        raise UserError(f"{path} must be an nnU-Net plan, but has no 'configurations'")
    if configuration is not None and configuration not in names:
        raise UserError(
            f"-c {configuration}: {path} has no such configuration, only {', '.join(names)}"
            f"{suggestion([configuration], names)}"
        )
    chosen = [configuration] if configuration else names
    return [explain_configuration(plans, dataset, name) for name in chosen]


def explain_configuration(
    plans: dict[str, Any], dataset: Mapping[str, Any], name: str
) -> Explanation:
    """Compute the cost of one configuration.

    Args:
        plans: content of nnU-Net's plan.
        dataset: content of dataset.json.
        name: of the configuration.

    Raises:
        UserError: a plan edited into something that cannot be built.
    """
    try:
        planned = PlansManager(plans).get_configuration(name)
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(f"configuration {name!r} cannot be resolved: {error}") from error
    spec = plan_spec(planned)
    channels, classes = _channels_and_classes(dataset)
    spec = spec_from(with_cascade_channels(spec, planned, dict(dataset)), os.environ)
    channels += spec.cascade_channels
    patch = tuple(planned.patch_size)
    spec.check_patch(patch)
    recipe = recipe_from(planned.configuration.get(RECIPE, {}), os.environ).for_network(spec)
    two = stage_two(
        spec,
        patch,
        batch=planned.batch_size,
        channels=channels,
        classes=classes,
        checkpointing=recipe.activation_checkpointing,
    )
    one, slices = None, 0
    if recipe.stage1_epochs:  # none without an encoder
        slices = recipe.slices_per_step(tokens_of(spec, patch))
        one = stage_one(
            spec,
            patch,
            slices=slices,
            channels=channels,
            classes=classes,
            resident=two.resident,
            checkpointing=recipe.activation_checkpointing,
        )
    return Explanation(
        name=name,
        patch=patch,
        batch=planned.batch_size,
        spacing=tuple(planned.spacing),
        channels=channels,
        classes=classes,
        recipe=recipe,
        slices=slices,
        one=one,
        two=two,
        prediction=prediction(spec, patch, channels=channels, classes=classes),
        decisions=_decisions(planned.configuration.get(DECISIONS, [])),
        target_gib=_target(planned.configuration.get(MEMORY_TARGET)),
        ours=planned.network_arch_class_name == NETWORK,
    )


def _channels_and_classes(dataset: Mapping[str, Any]) -> tuple[int, int]:
    """Channels of the images, and of the logits."""
    try:
        labels = LabelManager(dataset["labels"], dataset.get("regions_class_order"))
        return len(
            dataset.get("channel_names") or dataset["modality"]
        ), labels.num_segmentation_heads
    except (KeyError, TypeError, AssertionError) as error:
        raise UserError(
            f"dataset.json in the plan's folder lacks an entry that nnU-Net requires ({error!r})"
        ) from error


def _decisions(rows: Any) -> list[Mapping[str, str]]:
    texts = ("what", "value", "why")
    good = isinstance(rows, list) and all(
        isinstance(row, dict) and all(isinstance(row.get(key), str) for key in texts)
        for row in rows
    )
    if not good:
        raise UserError(f"plan: {DECISIONS!r} must be a list of objects with what, value and why")
    return list(rows)


def _target(gib: Any) -> float | None:
    if gib is not None and (type(gib) not in (int, float) or not gib > 0):
        raise UserError(f"plan: {MEMORY_TARGET!r} must be a positive number of GiB, got {gib!r}")
    return gib  # type: ignore[no-any-return]


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{what} file {path} does not exist; give the .json that planning wrote into nnUNet_preprocessed, or "
            "plans.json of a trained model (with dataset.json in the same folder)"
        ) from error
    except (OSError, ValueError) as error:
        if path.is_dir():
            inside = ", ".join(sorted(file.name for file in path.glob("*Plans.json")))
            raise UserError(
                f"{what} file {path} is a folder; give the .json in it{f' ({inside})' if inside else ''}"
            ) from error
        raise UserError(f"{what} file {path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{what} file {path} must hold a JSON object")
    return content
