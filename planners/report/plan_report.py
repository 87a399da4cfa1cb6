"""What is printed of a finished plan: its decisions as a table or as plain data, and a note on weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed

from dinomed3d.networks import NetworkSpec
from dinomed3d.training.settings.nnunet_plan import DECISIONS, MEMORY_TARGET
from planners.report.tables import decision_tables
from planners.report.weights_note import weights_note


def plan_report(plans: Mapping[str, Any]) -> str:
    """All decisions of a plan: first those that all configurations share, then each one's own.

    Below them, if DINOMED3D_WEIGHTS names no weights, whose training will ask for.
    """
    ours = {n: c for n, c in plans["configurations"].items() if DECISIONS in c}
    targets = {f"{configuration[MEMORY_TARGET]:g}" for configuration in ours.values()}
    title = f"{plans['plans_name']} for {' or '.join(sorted(targets))} GiB"
    table = decision_tables(title, {name: c[DECISIONS] for name, c in ours.items()})
    note = weights_note(_networks(ours), os.environ)
    return f"{table}\n\n{note}" if note else table


def plan_json(plans: Mapping[str, Any]) -> dict[str, Any]:
    """The same as plain data, with patch, batch and encoder of each configuration."""
    ours = {n: c for n, c in plans["configurations"].items() if DECISIONS in c}
    networks = _networks(ours)
    return {
        "plans": plans["plans_name"],
        "dataset": plans["dataset_name"],
        "file": Path(nnUNet_preprocessed, plans["dataset_name"], f"{plans['plans_name']}.json"),
        "weights": " ".join(weights_note(networks, os.environ).split()) or None,
        "configurations": {
            name: {
                "target_gib": c[MEMORY_TARGET],
                "patch_voxels": c["patch_size"],
                "batch": c["batch_size"],
                "spacing_mm": c["spacing"],
                "encoder": networks[name].encoder
                if "encoder" in networks[name].components
                else None,
                "decisions": c[DECISIONS],
            }
            for name, c in ours.items()
        },
    }


def _networks(configurations: Mapping[str, Any]) -> dict[str, NetworkSpec]:
    """The networks of configurations of ours, by name."""
    return {
        name: NetworkSpec.from_arch_kwargs(c["architecture"]["arch_kwargs"])
        for name, c in configurations.items()
    }
