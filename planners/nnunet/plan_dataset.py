"""Plan a dataset from Python or from the verb `plan`, as nnU-Net's command does."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw

from dinomed3d.runtime.errors import UserError
from planners.nnunet.planner import DinoMed3DPlanner


def plan_dataset(
    dataset: str,
    *,
    memory_gib: float,
    plans_name: str,
    preprocessor_name: str,
    target_spacing: list[float] | None,
) -> dict[str, Any]:
    """Plan a dataset whose fingerprint nnU-Net has extracted; nnU-Net's output goes to stderr.

    Args:
        dataset: its number or name.
        memory_gib: memory of the GPU.
        plans_name: the plan is written to PLANS_NAME.json.
        preprocessor_name: name of nnU-Net's class.
        target_spacing: of 3d_fullres, mm; None for nnU-Net's rule.

    Returns:
        The content of the plan, for `plan_report` and `plan_json`.

    Raises:
        UserError: nnU-Net's folders are not set, there is no such dataset or fingerprint, or no
            network fits.
    """
    if not (nnUNet_raw.is_set() and nnUNet_preprocessed.is_set()):
        raise UserError(
            "nnUNet_raw and nnUNet_preprocessed must be set to nnU-Net's folders; 'dinomed3d doctor' shows "
            "which are set"
        )
    with redirect_stdout(sys.stderr):
        try:
            planner = DinoMed3DPlanner(
                dataset, memory_gib, preprocessor_name, plans_name, target_spacing
            )
            plans: dict[str, Any] = ExperimentPlanner.plan_experiment(
                planner
            )  # without printing the table
        except UserError:
            raise
        except (RuntimeError, OSError, AssertionError, KeyError, ValueError) as error:
            reason = (
                str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
                or type(error).__name__
            )
            raise UserError(
                f"nnU-Net cannot plan dataset {dataset!r}: {reason}. Is it in nnUNet_raw with "
                "its dataset.json, and was its fingerprint extracted (nnUNetv2_extract_fingerprint)? If the extraction "
                "itself fails with an IndexError, no training label has any foreground"
            ) from error
    return plans
