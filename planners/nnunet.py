"""DinoMed3DPlanner: nnU-Net's planning, with our network written into every configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)

from dinomed3d.networks import spec_for_patch
from dinomed3d.training.plan import RECIPE, network_entry
from dinomed3d.training.recipe import Recipe

PLANNED = {
    name: getattr(Recipe(), name)
    for name in (
        "stage1_epochs",
        "stage2_epochs",
        "iterations_per_epoch",
        "val_iterations_per_epoch",
    )
}
"""What a plan says of the training; the rest are the trainer's defaults."""


class DinoMed3DPlanner(ExperimentPlanner):
    """Patch, batch and spacing as nnU-Net's default planner chooses them; the network is ours."""

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 8,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str = "DinoMed3DPlans",
        overwrite_target_spacing: list[float] | tuple[float, ...] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        """As nnU-Net's, but plans are called DinoMed3DPlans."""
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )

    def get_plans_for_configuration(
        self,
        spacing: np.ndarray | tuple[float, ...] | list[float],
        median_shape: np.ndarray | tuple[int, ...],
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict[str, Any],
    ) -> dict[str, Any]:
        """nnU-Net's plan of one configuration, its network replaced."""
        plan: dict[str, Any] = super().get_plans_for_configuration(
            spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache
        )
        spec = spec_for_patch(
            [int(side) for side in plan["patch_size"]], [float(s) for s in plan["spacing"]]
        )
        return plan | {"architecture": network_entry(spec), RECIPE: PLANNED}
