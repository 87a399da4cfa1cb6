"""A plan file explained with measured times, as text or as plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from planners.explain.device_speed import Speed, measure_speed
from planners.explain.explanation import Explanation, slice_patch
from planners.explain.explanation_json import explanation_json
from planners.explain.explanation_text import explanation_text
from planners.explain.loader_speed import LoaderSpeed, measure_loader
from planners.explain.plan_costs import explain_plan


def say_nothing(text: str) -> None:
    """The default of `say`: nothing is printed."""


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
    speed, loaded = _measured(path, configuration, device, say)
    return "\n\n\n".join(explanation_text(e, speed, loaders) for e, loaders in loaded)


def explain_json(
    path: Path,
    configuration: str | None,
    device: torch.device,
    say: Callable[[str], None] = say_nothing,
) -> dict[str, Any]:
    """The same as plain data, for programs; arguments and errors are those of `explain`."""
    speed, loaded = _measured(path, configuration, device, say)
    return {
        "plan": path,
        "device": speed.device,
        "products_flops_per_second": speed.products,
        "convolutions_flops_per_second": speed.convolutions,
        "configurations": {e.name: explanation_json(e, speed, loaders) for e, loaders in loaded},
    }


def _measured(
    path: Path, configuration: str | None, device: torch.device, say: Callable[[str], None]
) -> tuple[Speed, list[tuple[Explanation, dict[str, LoaderSpeed]]]]:
    """The measured speed of the device, and each configuration with the measured loaders of its stages."""
    explanations = explain_plan(path, configuration)
    say(_measuring(explanations, device))
    return measure_speed(device), [(e, _loaders_of(e)) for e in explanations]


def _measuring(explanations: Sequence[Explanation], device: torch.device) -> str:
    """What is measured for a plan, and about how long that takes: a second for each throughput and each stage."""
    seconds = 2 + sum(len(e.stages) for e in explanations)
    names = ", ".join(e.name for e in explanations)
    return f"measuring the speed of {device} and of loading for {names}: about {seconds} s"


def _loaders_of(e: Explanation) -> dict[str, LoaderSpeed]:
    """The measured loader of each stage that there is, "I" and "II"."""
    loaders = {"II": measure_loader(e.patch, e.spacing, channels=e.channels)}
    if "I" in e.stages:
        patch = slice_patch(e.patch)
        loaders["I"] = measure_loader(patch, e.spacing, channels=e.channels, slicewise=True)
    return loaders
