"""A plan explained: what was decided and why, and what each part costs in memory and time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from dinomed3d.networks import NetworkSpec
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.plan import NETWORK, RECIPE, plan_spec, with_prior
from dinomed3d.training.recipe import (
    RECIPE_VARIABLES,
    SPEC_VARIABLES,
    Recipe,
    recipe_from,
    spec_from,
)
from planners.budget import Budget
from planners.cost import StepCost, prediction, stage_one, stage_two
from planners.sizing import tokens_of
from planners.speed import Speed, measure_speed
from planners.table import DECISIONS, TARGET, decision_table, grid

MIB, GIB, TERA = 2**20, 2**30, 1e12


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One configuration."""

    name: str
    spec: NetworkSpec
    patch: tuple[int, ...]
    batch: int
    spacing: tuple[float, ...]
    channels: int
    classes: int
    recipe: Recipe
    slices: int
    """In a step of stage I."""
    one: StepCost | None
    two: StepCost
    prediction: float
    decisions: list[Mapping[str, str]]
    target_gib: float | None
    ours: bool
    """The plan names our network; else it is a stock plan, and this is what our trainer makes of it."""

    def text(self, speed: Speed) -> str:
        """For the terminal."""
        return "\n".join(
            [*self._heading(), "", *self._parts(speed), "", *self._memory(), *self._time(speed)]
        )

    def _heading(self) -> list[str]:
        side = " x ".join(f"{s:g}" for s in self.spacing)
        lines = [
            f"{self.name}: patches of {' x '.join(map(str, self.patch))} voxels of {side} mm, {self.batch} in a step; "
            f"{self.channels} channel{'s' * (self.channels > 1)} in, {self.classes} outputs"
        ]
        if not self.ours:
            lines.append(
                "  This plan was not made by DinoMed3DPlanner: patch and batch are not sized for our network. Below is "
                "what -tr DinoMed3DTrainer makes of it."
            )
        names = [n for n in (*SPEC_VARIABLES, *RECIPE_VARIABLES) if os.environ.get(n, "").strip()]
        if names:
            lines.append(f"  Changed by {', '.join(names)}, as the trainer would.")
        if self.decisions:
            lines += ["", decision_table(self.decisions)]
        return lines

    def _parts(self, speed: Speed) -> list[str]:
        seconds = speed.seconds(self.two.parts)
        header = ["a step of stage II", "parameters M", "learn M", "TFLOP forward", "backward",
                  "kept MiB", "time %"]  # fmt: skip
        total = sum(seconds.values())
        rows = [
            [
                name,
                f"{cost.parameters / 1e6:.2f}",
                f"{cost.trained / 1e6:.2f}",
                f"{cost.flops / TERA:.3f}",
                f"{cost.backward_flops / TERA:.3f}",
                f"{cost.saved / MIB:.0f}",
                f"{100 * seconds[name] / total:.0f}",
            ]
            for name, cost in self.two.parts.items()
        ]
        forward = sum(cost.flops for cost in self.two.parts.values())
        rows.append(
            [
                "all",
                f"{self.two.parameters / 1e6:.2f}",
                f"{self.two.trained / 1e6:.2f}",
                f"{forward / TERA:.3f}",
                f"{(self.two.flops - forward) / TERA:.3f}",
                f"{self.two.saved / MIB:.0f}",
                "100",
            ]
        )
        return [grid(header, rows)]

    def _memory(self) -> list[str]:
        first = f"{self.one.peak / GIB:.1f} GiB in stage I, " if self.one is not None else ""
        peak = max(self.two.peak, 0.0 if self.one is None else self.one.peak)
        needs = Budget.for_bytes(peak)
        lines = [
            f"  memory of tensors: {first}{self.two.peak / GIB:.1f} GiB in stage II; a GPU with {needs:.1f} GiB, its "
            "libraries included",
            f"  predicting a patch: {self.prediction / GIB:.1f} GiB, and what nnU-Net keeps of the whole volume",
        ]
        if self.target_gib is not None and needs > 1.02 * self.target_gib:
            lines.append(f"  NOTE: more than the {self.target_gib:g} GiB that it was planned for")
        return lines

    def _time(self, speed: Speed) -> list[str]:
        steps = self.recipe.iterations_per_epoch
        second = sum(speed.seconds(self.two.parts).values())
        hours = second * steps * self.recipe.stage2_epochs / 3600
        told = f"{_seconds(second)} a step in stage II"
        if self.one is not None and self.recipe.stage1_epochs:
            slicewise = sum(speed.seconds(self.one.parts).values())
            hours += slicewise * steps * self.recipe.stage1_epochs / 3600
            told = f"{_seconds(slicewise)} a step in stage I ({self.slices} slices), {told}"
        first = f"{self.recipe.stage1_epochs} + " if self.recipe.stage1_epochs else ""
        return [
            f"  time on {speed.device}: {told}; {_hours(hours)} for "
            f"{first}{self.recipe.stage2_epochs} epochs of {steps} steps",
            f"  (arithmetic over measured rates: products {speed.products / TERA:.3g}, convolutions "
            f"{speed.convolutions / TERA:.3g} TFLOP/s; norms, losses, augmentation and validation come on top)",
        ]


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"


def _hours(value: float) -> str:
    return f"{value / 24:.0f} days" if value >= 72 else f"{value:.2g} h"


def explain(path: Path, configuration: str | None, device: torch.device) -> str:
    """Explain a plan file, all its configurations or one.

    Args:
        path: nnU-Net's plan; dataset.json must lie beside it.
        configuration: "3d_fullres", or None for all.
        device: whose speed is measured for the times.

    Raises:
        UserError: not a plan, or one that no network can be built from.
    """
    plans, dataset = _read(path, "plan"), _read(path.with_name("dataset.json"), "dataset")
    names = list(plans.get("configurations") or {})
    if not names:
        raise UserError(f"{path} is no nnU-Net plan, it has no 'configurations'")
    if configuration is not None and configuration not in names:
        raise UserError(f"{path} has no configuration {configuration!r}, only {', '.join(names)}")
    chosen = [configuration] if configuration else names
    explanations = [explain_configuration(plans, dataset, name) for name in chosen]
    speed = measure_speed(device)
    return "\n\n\n".join(explanation.text(speed) for explanation in explanations)


def explain_configuration(
    plans: dict[str, Any], dataset: Mapping[str, Any], name: str
) -> Explanation:
    """Count one configuration.

    Args:
        plans: nnU-Net's.
        dataset: dataset.json.
        name: of the configuration.

    Raises:
        UserError: a plan edited into something that cannot be built.
    """
    try:
        planned = PlansManager(plans).get_configuration(name)
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(f"configuration {name!r} cannot be resolved: {error}") from error
    spec = plan_spec(planned)
    try:
        labels = LabelManager(dataset["labels"], dataset.get("regions_class_order"))
        image_channels = len(dataset.get("channel_names") or dataset["modality"])
    except (KeyError, TypeError, AssertionError) as error:
        raise UserError(
            f"dataset.json beside the plan lacks what nnU-Net demands of it ({error!r})"
        ) from error
    spec = spec_from(with_prior(spec, planned, dict(dataset)), os.environ)
    patch = tuple(planned.patch_size)
    spec.check_patch(patch)
    channels, classes = image_channels + spec.cascade_channels, labels.num_segmentation_heads
    recipe = recipe_from(planned.configuration.get(RECIPE, {}), os.environ)
    if "encoder" not in spec.parts:
        recipe = replace(recipe, stage1_epochs=0)  # as the trainer does
    two = stage_two(
        spec,
        patch,
        batch=planned.batch_size,
        channels=channels,
        classes=classes,
        checkpointing=recipe.activation_checkpointing,
    )
    one, slices = None, 0
    if "encoder" in spec.parts:
        depth = 1 if len(patch) == 2 else patch[0]
        slices = min(recipe.slices_per_step(tokens_of(spec, patch)), planned.batch_size * depth)
        one = stage_one(
            spec,
            patch,
            slices=slices,
            channels=channels,
            classes=classes,
            resident=two.resident,
            batch=planned.batch_size,
            checkpointing=recipe.activation_checkpointing,
        )
    return Explanation(
        name=name,
        spec=spec,
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
        target_gib=_target(planned.configuration.get(TARGET)),
        ours=planned.network_arch_class_name == NETWORK,
    )


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
        raise UserError(f"plan: {TARGET!r} must be a positive number of GiB, got {gib!r}")
    return gib  # type: ignore[no-any-return]


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"there is no {what} file {path}; give the .json that planning wrote into nnUNet_preprocessed, or "
            "plans.json of a trained model (dataset.json lies beside either)"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{what} file {path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{what} file {path} must hold a JSON object")
    return content
