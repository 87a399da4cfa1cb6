"""A plan explained: decisions with reasons, and each component's cost in memory and time."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.suggestion import suggestion
from dinomed3d.training.data.stage_one_loader import MIN_DEPTH
from dinomed3d.training.settings.environment import (
    RECIPE_VARIABLES,
    SPEC_VARIABLES,
    recipe_from,
    spec_from,
)
from dinomed3d.training.settings.nnunet_plan import (
    DECISIONS,
    NETWORK,
    RECIPE,
    plan_spec,
    with_cascade_channels,
)
from dinomed3d.training.settings.recipe import Recipe
from planners.augmentation_cost import LoaderSpeed, measure_loader
from planners.budget import Budget
from planners.cost import StepCost, prediction, stage_one, stage_two
from planners.geometry import tokens_of
from planners.layer_costs import ComponentCost
from planners.speed import Speed, measure_speed
from planners.table import TARGET, decision_table, grid

MIB, GIB, TERA = 2**20, 2**30, 1e12


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One configuration of a plan, with its cost."""

    name: str
    patch: tuple[int, ...]
    """(D, H, W) or (H, W), voxels."""
    batch: int
    """Patches in a step."""
    spacing: tuple[float, ...]
    """Spacing along the patch's axes, mm."""
    channels: int
    """Channels of the input, including the previous configuration's segmentation (cascade)."""
    classes: int
    """Channels of the logits."""
    recipe: Recipe
    slices: int
    """Slices in a step of stage I."""
    one: StepCost | None
    """Cost of a step of stage I; None without an encoder."""
    two: StepCost
    """Cost of a step of stage II."""
    prediction: float
    """Peak memory of predicting one patch, bytes."""
    decisions: list[Mapping[str, str]]
    """Rows of the plan's table of decisions."""
    target_gib: float | None
    """Memory that the plan was made for."""
    ours: bool
    """Whether the plan names our network; otherwise it is a stock plan, as our trainer would use it."""

    def text(self, speed: Speed, loaders: Mapping[str, LoaderSpeed]) -> str:
        """The explanation as text, with times on a device and of each stage's loader, "I" and "II"."""
        return "\n".join(
            [
                *self._heading(),
                "",
                *self._components(speed),
                "",
                *self._memory(),
                *self._time(speed),
                *self._loading(speed, loaders),
            ]
        )

    @property
    def stages(self) -> Mapping[str, tuple[StepCost, int, int]]:
        """Cost of a step, voxels of its patches and number of epochs of each stage that there is, "I" and "II"."""
        stages = {}
        if self.one is not None and self.recipe.stage1_epochs:
            voxels = self.slices * math.prod(slice_patch(self.patch))
            stages["I"] = self.one, voxels, self.recipe.stage1_epochs
        voxels = self.batch * math.prod(self.patch)
        return {**stages, "II": (self.two, voxels, self.recipe.stage2_epochs)}

    @property
    def needs_gib(self) -> float:
        """Memory of a GPU on which both stages fit, libraries included, GiB."""
        peak = max(self.two.peak, 0.0 if self.one is None else self.one.peak)
        return Budget.for_bytes(peak)

    @property
    def variables(self) -> list[str]:
        """Environment variables that change the plan."""
        names = (*SPEC_VARIABLES, *RECIPE_VARIABLES)
        return [name for name in names if os.environ.get(name, "").strip()]

    def step_seconds(self, speed: Speed) -> dict[str, float]:
        """Time of a step of each stage that there is, "I" and "II", without loading."""
        return {
            stage: sum(speed.seconds(cost.components).values())
            for stage, (cost, _, _) in self.stages.items()
        }

    def hours(self, speed: Speed) -> float:
        """Time of all epochs of both stages, without loading and validation."""
        seconds, steps = self.step_seconds(speed), self.recipe.iterations_per_epoch
        return sum(
            seconds[stage] * steps * epochs / 3600 for stage, (_, _, epochs) in self.stages.items()
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
                "how -tr DinoMed3DTrainer would use it."
            )
        if self.variables:
            lines.append(f"  Changed by {', '.join(self.variables)}, as the trainer would.")
        if self.decisions:
            lines += ["", decision_table(self.decisions)]
        return lines

    def _components(self, speed: Speed) -> list[str]:
        seconds = speed.seconds(self.two.components)
        header = ["a step of stage II", "parameters M", "trained M", "TFLOP forward", "backward",
                  "saved MiB", "time %"]  # fmt: skip
        costs = list(self.two.components.values())
        whole = ComponentCost(
            **{f.name: sum(getattr(cost, f.name) for cost in costs) for f in fields(ComponentCost)}
        )
        seconds["all"] = sum(seconds.values())
        rows = [
            [
                name,
                f"{cost.parameters / 1e6:.2f}",
                f"{cost.trained / 1e6:.2f}",
                f"{cost.flops / TERA:.3f}",
                f"{cost.backward_flops / TERA:.3f}",
                f"{cost.saved / MIB:.0f}",
                f"{100 * seconds[name] / seconds['all']:.0f}",
            ]
            for name, cost in [*self.two.components.items(), ("all", whole)]
        ]
        return [grid(header, rows)]

    def _memory(self) -> list[str]:
        first = f"{self.one.peak / GIB:.1f} GiB in stage I, " if self.one is not None else ""
        needs = self.needs_gib
        lines = [
            f"  memory of tensors: {first}{self.two.peak / GIB:.1f} GiB in stage II; a GPU with {needs:.1f} GiB, "
            "libraries included",
            f"  predicting a patch: {self.prediction / GIB:.1f} GiB, and the logits of the whole volume",
        ]
        if self.target_gib is not None and needs > 1.02 * self.target_gib:
            lines.append(f"  NOTE: more than the plan's target of {self.target_gib:g} GiB")
        return lines

    def _time(self, speed: Speed) -> list[str]:
        steps, seconds = self.recipe.iterations_per_epoch, self.step_seconds(speed)
        text = f"{_seconds(seconds['II'])} per step in stage II"
        if "I" in seconds:
            text = f"{_seconds(seconds['I'])} per step in stage I ({self.slices} slices), {text}"
        first = f"{self.recipe.stage1_epochs} + " if self.recipe.stage1_epochs else ""
        return [
            f"  time on {speed.device}: {text}; {_hours(self.hours(speed))} for "
            f"{first}{self.recipe.stage2_epochs} epochs of {steps} steps",
            f"  (FLOPs divided by measured throughput: products {speed.products / TERA:.3g}, convolutions "
            f"{speed.convolutions / TERA:.3g} TFLOP/s; norms, losses, augmentation and validation not included)",
        ]

    def _loading(self, speed: Speed, loaders: Mapping[str, LoaderSpeed]) -> list[str]:
        """Time of augmentation in each stage's step, and what to do if the device would wait for it."""
        spent = ", ".join(
            f"{loaders[stage].core_seconds(voxels):.2g} s per step in stage {stage}"
            for stage, (_, voxels, _) in self.stages.items()
        )
        lines = [f"  augmentation, of one core: {spent}; {loaders['II'].cores} cores here"]
        for stage, seconds in self.step_seconds(speed).items():
            if note := loaders[stage].note(self.stages[stage][1], seconds):
                lines.append(f"  NOTE: in stage {stage} {note}")
        return lines


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"


def _hours(value: float) -> str:
    return f"{value / 24:.0f} days" if value >= 72 else f"{value:.2g} h"


def say_nothing(text: str) -> None:
    """The default of `say`: nothing is printed."""


def measuring(explanations: Sequence[Explanation], device: torch.device) -> str:
    """What is measured for a plan, and about how long that takes: a second for each throughput and each stage."""
    seconds = 2 + sum(len(e.stages) for e in explanations)
    names = ", ".join(e.name for e in explanations)
    return f"measuring the speed of {device} and of loading for {names}: about {seconds} s"


def explain(
    path: Path,
    configuration: str | None,
    device: torch.device,
    say: Callable[[str], None] = say_nothing,
) -> str:
    """Explain a plan file, all its configurations or one, as text.

    Args:
        path: nnU-Net's plan; dataset.json must be in the same folder.
        configuration: "3d_fullres", or None for all.
        device: its speed is measured for the times.
        say: receives what is being done, before it takes seconds.

    Raises:
        UserError: not a plan, or one that no network can be built from.
    """
    explanations = explain_plan(path, configuration)
    say(measuring(explanations, device))
    speed = measure_speed(device)
    return "\n\n\n".join(e.text(speed, loaders_of(e)) for e in explanations)


def explain_plan(path: Path, configuration: str | None) -> list[Explanation]:
    """The cost of a plan's configurations, all or one.

    Args:
        path: as for `explain`.
        configuration: likewise.

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


def slice_patch(patch: Sequence[int]) -> tuple[int, ...]:
    """What stage I augments for a slice: some slices around it, or of single slices the slice alone."""
    return (MIN_DEPTH, *patch[1:]) if len(patch) == 3 else tuple(patch)


def loaders_of(e: Explanation) -> dict[str, LoaderSpeed]:
    """The measured loader of each stage that there is, "I" and "II"."""
    loaders = {"II": measure_loader(e.patch, e.spacing, channels=e.channels)}
    if "I" in e.stages:
        patch = slice_patch(e.patch)
        loaders["I"] = measure_loader(patch, e.spacing, channels=e.channels, slicewise=True)
    return loaders


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
    if "encoder" in spec.components:
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
        target_gib=_target(planned.configuration.get(TARGET)),
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
        raise UserError(f"plan: {TARGET!r} must be a positive number of GiB, got {gib!r}")
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
