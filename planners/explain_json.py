"""The explanation of a plan as plain data, for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from planners.augmentation_cost import LoaderSpeed
from planners.explain import Explanation, explain_plan, loaders_of, measuring, say_nothing
from planners.speed import Speed, measure_speed


def explain_json(
    path: Path,
    configuration: str | None,
    device: torch.device,
    say: Callable[[str], None] = say_nothing,
) -> dict[str, Any]:
    """Explain a plan file, all its configurations or one.

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
    return {
        "plan": path,
        "device": speed.device,
        "products_flops_per_second": speed.products,
        "convolutions_flops_per_second": speed.convolutions,
        "configurations": {e.name: _content(e, speed, loaders_of(e)) for e in explanations},
    }


def _content(e: Explanation, speed: Speed, loaders: Mapping[str, LoaderSpeed]) -> dict[str, Any]:
    """One configuration."""
    seconds, component_seconds = e.step_seconds(speed), speed.seconds(e.two.components)
    return {
        "made_by_our_planner": e.ours,
        "changed_by": e.variables,
        "decisions": e.decisions,
        "patch_voxels": e.patch,
        "batch": e.batch,
        "spacing_mm": e.spacing,
        "channels": e.channels,
        "classes": e.classes,
        "components": {
            name: {
                "parameters": cost.parameters,
                "trained_parameters": cost.trained,
                "forward_flops": cost.flops,
                "backward_flops": cost.backward_flops,
                "saved_bytes": cost.saved,
                "seconds": component_seconds[name],
            }
            for name, cost in e.two.components.items()
        },
        "stages": {
            stage: {
                "epochs": epochs,
                "steps_per_epoch": e.recipe.iterations_per_epoch,
                "peak_bytes": cost.peak,
                "step_seconds": seconds[stage],
                "augmentation_core_seconds": loaders[stage].core_seconds(voxels),
                "note": loaders[stage].note(voxels, seconds[stage]) or None,
            }
            for stage, (cost, voxels, epochs) in e.stages.items()
        },
        "training_hours": e.hours(speed),
        "gpu_gib": e.needs_gib,
        "target_gib": e.target_gib,
        "predict_patch_bytes": e.prediction,
        "cores": loaders["II"].cores,
    }
