"""DinoMed3DPlanner: nnU-Net's planning with our sizing of every configuration."""

from __future__ import annotations

import inspect
import math
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from dinomed3d.runtime.commands.one_line_errors import report_user_errors
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.data.dataset_labels import check_labels
from dinomed3d.training.settings.nnunet_plan import DECISIONS, MEMORY_TARGET
from planners.budget import Budget
from planners.nnunet.earlier_plan import drop_stale
from planners.nnunet.fingerprint import check_fingerprint
from planners.nnunet.forced_fields import forced_fields
from planners.nnunet.plan_entries import cnn_plan, sized_entry
from planners.nnunet.shared_data import SHARED, other_data
from planners.report.decisions import decisions
from planners.report.plan_report import plan_report
from planners.sizing import CnnPlan, CnnRule, DatasetStats, size_configuration

MIN_PLANE = 16
"""Side of a slice in voxels below which nnU-Net's rule makes a network of one level: it plans for this instead."""


class DinoMed3DPlanner(ExperimentPlanner):
    """nnU-Net's default planner, whose CNN becomes the detail stream and decoder of DINO-Med3D.

    Spacing, resampling, normalisation, patch, batch and CNN are decided by nnU-Net's rules, tokens and encoder
    by ours. Fields of the network that DINOMED3D_ variables set (encoder, overrides, voxels per token, slices,
    components) are kept, and the rest is sized for them.
    """

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 8,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str = "DinoMed3DPlans",
        overwrite_target_spacing: list[float] | tuple[float, ...] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        """As nnU-Net's, but plans are called DinoMed3DPlans.

        Raises:
            UserError: settings or a dataset that cannot be planned.
        """
        report_user_errors()
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        if any(not 0 < s < math.inf for s in overwrite_target_spacing or ()):
            raise UserError(
                "planner: -overwrite_target_spacing must be three positive numbers (mm), got "
                f"{list(overwrite_target_spacing or ())}"
            )
        check_labels(self.dataset_json)
        self.memory_gib = Budget(memory_gib=gpu_memory_target_in_gb).memory_gib
        self.forced = forced_fields(os.environ)
        self.labels = LabelManager(
            self.dataset_json["labels"], self.dataset_json.get("regions_class_order")
        )
        foreground = (
            self.labels.foreground_regions
            if self.labels.has_regions
            else self.labels.foreground_labels
        )
        schemes, _ = self.determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        check_fingerprint(self.dataset_fingerprint, schemes, foreground)
        self._fullres: tuple[DatasetStats, CnnRule] | None = None
        self._reasons: dict[str, dict[str, Any]] = {}
        self._identifiers: dict[str, str] = {}

    def get_plans_for_configuration(
        self,
        spacing: np.ndarray | tuple[float, ...] | list[float],
        median_shape: np.ndarray | tuple[int, ...],
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict[str, Any],
    ) -> dict[str, Any]:
        """One configuration of nnU-Net's plan.

        Args:
            spacing: target spacing, (D, H, W) or (H, W), mm.
            median_shape: median shape of the training images at that spacing, voxels.
            data_identifier: folder of the preprocessed data.
            approximate_n_voxels_dataset: voxels of all training images together.
            _cache: sizes of networks that nnU-Net's rule has looked at.
        """
        stats = DatasetStats(
            spacing=tuple(float(s) for s in spacing),
            shape=tuple(round(float(side)) for side in median_shape),
            channels=len(self.dataset_json.get("channel_names") or self.dataset_json["modality"]),
            classes=self.labels.num_segmentation_heads,
        )
        asked = (spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache)

        def rule(memory_gib: float) -> CnnPlan:
            return cnn_plan(self.stock_entry(memory_gib, *asked))

        if data_identifier == self.generate_data_identifier("3d_fullres"):
            self._fullres = stats, rule
        entry = self.stock_entry(self.memory_gib, *asked)
        sized = self._sized(stats, rule, data_identifier)
        return entry | {"median_image_size_in_voxels": median_shape} | sized

    def stock_entry(
        self, memory_gib: float, spacing: Any, median_shape: Any, *others: Any
    ) -> dict[str, Any]:
        """What nnU-Net's rule plans for a memory.

        Args:
            memory_gib: memory target, GiB.
            spacing: as in `get_plans_for_configuration`.
            median_shape: likewise; rows and columns below MIN_PLANE are planned for as if they were MIN_PLANE.
            others: the other arguments of `get_plans_for_configuration`.
        """
        least = [1] * (len(spacing) - 2) + [MIN_PLANE] * 2
        self.UNet_vram_target_GB = memory_gib
        entry: dict[str, Any] = super().get_plans_for_configuration(
            spacing, np.maximum(median_shape, least), *others
        )
        return entry

    def _preprocessing(self) -> dict[str, Any]:
        """The entries of every configuration that say how cases are preprocessed, apart from the spacing."""
        data, data_kwargs, seg, seg_kwargs = self.determine_resampling()
        schemes, masked = self.determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        return {
            "preprocessor_name": self.preprocessor_name,
            "normalization_schemes": schemes,
            "use_mask_for_norm": masked,
            "resampling_fn_data": data.__name__,
            "resampling_fn_seg": seg.__name__,
            "resampling_fn_data_kwargs": data_kwargs,
            "resampling_fn_seg_kwargs": seg_kwargs,
        }

    def generate_data_identifier(self, configuration_name: str) -> str:
        """The folder of the preprocessed data: nnU-Net's own where they are the same.

        They are for 2d and 3d_fullres planned without options that change them, unless another plan of
        the dataset preprocesses the data of that name in another way. Of 3d_lowres the spacing is ours.
        """
        if configuration_name not in self._identifiers:
            own = f"{self.plans_identifier}_{configuration_name}"
            shared = f"{SHARED}_{configuration_name}"
            is_shared = self._may_share(configuration_name, shared)
            self._identifiers[configuration_name] = shared if is_shared else own
        return self._identifiers[configuration_name]

    def _may_share(self, configuration_name: str, shared: str) -> bool:
        defaults = inspect.signature(DinoMed3DPlanner.__init__).parameters
        as_default = (
            self.plans_identifier == defaults["plans_name"].default
            and self.preprocessor_name == defaults["preprocessor_name"].default
            and self.overwrite_target_spacing is None
            and not self.suppress_transpose
        )
        if configuration_name not in ("2d", "3d_fullres") or not as_default:
            return False
        forward, _ = self.determine_transpose()
        spacing = self.determine_fullres_target_spacing()[forward]
        intensities = "foreground_intensity_properties_per_channel"
        entries = self._preprocessing() | {
            "spacing": [float(s) for s in spacing[configuration_name == "2d" :]],
            "transpose_forward": [int(axis) for axis in forward],
            intensities: self.dataset_fingerprint[intensities],
        }
        folder = Path(nnUNet_preprocessed, self.dataset_name)
        others = other_data(folder, shared, entries, except_for=self.plans_identifier)
        if others:
            print(
                f"{configuration_name}: preprocessed for {self.plans_identifier} alone: {', '.join(others)}"
            )
        return not others

    @staticmethod
    def static_estimate_VRAM_usage(
        patch_size: tuple[int],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: tuple[str, ...],
    ) -> float:
        """As nnU-Net's, of a network without weights: it takes a tenth of the time."""
        with torch.device("meta"):
            estimate: float = ExperimentPlanner.static_estimate_VRAM_usage(
                patch_size,
                input_channels,
                output_channels,
                arch_class_name,
                arch_kwargs,
                arch_kwargs_req_import,
            )
        return estimate

    def _sized(self, stats: DatasetStats, rule: CnnRule, key: str) -> dict[str, Any]:
        """Patch, batch, network and recipe of a configuration; its decisions are stored under `key`."""
        sizing = size_configuration(stats, rule, self.memory_gib, self.forced)
        rows = decisions(stats, sizing, self.memory_gib, self.forced)
        self._reasons[key] = {
            MEMORY_TARGET: self.memory_gib,
            DECISIONS: [asdict(row) for row in rows],
        }
        return sized_entry(sizing)

    def save_plans(self, plans: dict[str, Any]) -> None:
        """As nnU-Net, after sizing the cascade and adding the decisions."""
        configurations = plans["configurations"]
        if "3d_cascade_fullres" in configurations:
            self._size_cascade(configurations)
        for name, configuration in configurations.items():
            # only now, because nnU-Net prints the configurations before
            configuration |= self._reasons[configuration.get("data_identifier", name)]
        file = Path(nnUNet_preprocessed, self.dataset_name, f"{self.plans_identifier}.json")
        drop_stale(file, set(configurations))
        super().save_plans(plans)

    def _size_cascade(self, configurations: dict[str, Any]) -> None:
        """Size the cascade's second configuration, whose detail stream reads the labels of the first."""
        assert self._fullres is not None
        stats, rule = self._fullres
        labels = len(self.labels.foreground_labels)
        stats = replace(stats, channels=stats.channels + labels, cascade_channels=labels)
        configurations["3d_cascade_fullres"] |= self._sized(stats, rule, "3d_cascade_fullres")

    def plan_experiment(self) -> dict[str, Any]:
        """As nnU-Net, then print the table of decisions and what training will ask for."""
        plans: dict[str, Any] = super().plan_experiment()
        print(plan_report(plans))
        return plans
