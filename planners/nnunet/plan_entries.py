"""The entries of a configuration in nnU-Net's plan: those that its rule has planned, and ours from a sizing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dinomed3d.networks import CnnSpec
from dinomed3d.training.settings.nnunet_plan import RECIPE, network_entry
from dinomed3d.training.settings.recipe import Recipe
from planners.sizing import CnnPlan, Sizing

PLANNED = (
    "stage1_epochs",
    "stage2_epochs",
    "iterations_per_epoch",
    "val_iterations_per_epoch",
    "rate_adapters",
    "rate_decoder",
)
"""Fields of the recipe that every plan states with their defaults, so that users can edit them."""


def cnn_plan(entry: Mapping[str, Any]) -> CnnPlan:
    """Patch, batch and CNN of a configuration that nnU-Net's rule has planned."""
    network = entry["architecture"]
    return CnnPlan(
        patch=tuple(int(side) for side in entry["patch_size"]),
        batch=int(entry["batch_size"]),
        cnn=CnnSpec.from_nnunet(network["network_class_name"], network["arch_kwargs"]),
    )


def sized_entry(sizing: Sizing) -> dict[str, Any]:
    """The entries of a configuration in nnU-Net's plan that come from a sizing."""
    recipe = {name: getattr(Recipe(), name) for name in PLANNED} | dict(sizing.recipe)
    return {
        "batch_size": sizing.trial.batch,
        "patch_size": list(sizing.trial.patch),
        "architecture": network_entry(sizing.spec),
        RECIPE: recipe,
    }
