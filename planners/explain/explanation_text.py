"""The explanation of a configuration as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from dinomed3d.runtime.messages.counted import sides
from planners.cost.component_cost import ComponentCost
from planners.explain.device_speed import Speed
from planners.explain.explanation import Explanation
from planners.explain.loader_speed import LoaderSpeed
from planners.report.tables import decision_table, grid

MIB, GIB, TERA = 2**20, 2**30, 1e12


def explanation_text(e: Explanation, speed: Speed, loaders: Mapping[str, LoaderSpeed]) -> str:
    """The explanation as text, with times on a device and of each stage's loader, "I" and "II"."""
    return "\n".join(
        [
            *_heading(e),
            "",
            *_components(e, speed),
            "",
            *_memory(e),
            *_time(e, speed),
            *_loading(e, speed, loaders),
        ]
    )


def _heading(e: Explanation) -> list[str]:
    lines = [
        f"{e.name}: patches of {' x '.join(map(str, e.patch))} voxels of {sides(e.spacing)} mm, {e.batch} in a step; "
        f"{e.channels} channel{'s' * (e.channels > 1)} in, {e.classes} outputs"
    ]
    if not e.ours:
        lines.append(
            "  This plan was not made by DinoMed3DPlanner: patch and batch are not sized for our network. Below is "
            "how -tr DinoMed3DTrainer would use it."
        )
    if e.variables:
        lines.append(f"  Changed by {', '.join(e.variables)}, as the trainer would.")
    if e.decisions:
        lines += ["", decision_table(e.decisions)]
    return lines


def _components(e: Explanation, speed: Speed) -> list[str]:
    seconds = speed.seconds(e.two.components)
    header = ["a step of stage II", "parameters M", "trained M", "TFLOP forward", "backward",
              "saved MiB", "time %"]  # fmt: skip
    costs = list(e.two.components.values())
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
        for name, cost in [*e.two.components.items(), ("all", whole)]
    ]
    return [grid(header, rows)]


def _memory(e: Explanation) -> list[str]:
    first = f"{e.one.peak / GIB:.1f} GiB in stage I, " if e.one is not None else ""
    needs = e.needs_gib
    lines = [
        f"  memory of tensors: {first}{e.two.peak / GIB:.1f} GiB in stage II; a GPU with {needs:.1f} GiB, "
        "libraries included",
        f"  predicting a patch: {e.prediction / GIB:.1f} GiB, and the logits of the whole volume",
    ]
    if e.target_gib is not None and needs > 1.02 * e.target_gib:
        lines.append(f"  NOTE: more than the plan's target of {e.target_gib:g} GiB")
    return lines


def _time(e: Explanation, speed: Speed) -> list[str]:
    steps, seconds = e.recipe.iterations_per_epoch, e.step_seconds(speed)
    text = f"{_seconds(seconds['II'])} per step in stage II"
    if "I" in seconds:
        text = f"{_seconds(seconds['I'])} per step in stage I ({e.slices} slices), {text}"
    first = f"{e.recipe.stage1_epochs} + " if e.recipe.stage1_epochs else ""
    return [
        f"  time on {speed.device}: {text}; {_hours(e.hours(speed))} for "
        f"{first}{e.recipe.stage2_epochs} epochs of {steps} steps",
        f"  (FLOPs divided by measured throughput: products {speed.products / TERA:.3g}, convolutions "
        f"{speed.convolutions / TERA:.3g} TFLOP/s; norms, losses, augmentation and validation not included)",
    ]


def _loading(e: Explanation, speed: Speed, loaders: Mapping[str, LoaderSpeed]) -> list[str]:
    """Time of augmentation in each stage's step, and what to do if the device would wait for it."""
    spent = ", ".join(
        f"{loaders[stage].core_seconds(voxels):.2g} s per step in stage {stage}"
        for stage, (_, voxels, _) in e.stages.items()
    )
    lines = [f"  augmentation, of one core: {spent}; {loaders['II'].cores} cores here"]
    for stage, seconds in e.step_seconds(speed).items():
        if note := loaders[stage].note(e.stages[stage][1], seconds):
            lines.append(f"  NOTE: in stage {stage} {note}")
    return lines


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"


def _hours(value: float) -> str:
    return f"{value / 24:.0f} days" if value >= 72 else f"{value:.2g} h"
