"""The explanation of a configuration as plain data, for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planners.explain.device_speed import Speed
from planners.explain.explanation import Explanation
from planners.explain.loader_speed import LoaderSpeed


def explanation_json(
    e: Explanation, speed: Speed, loaders: Mapping[str, LoaderSpeed]
) -> dict[str, Any]:
    """The explanation as plain data, with times on a device and of each stage's loader, "I" and "II"."""
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
