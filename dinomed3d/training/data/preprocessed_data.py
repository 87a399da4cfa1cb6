"""The preprocessed cases that a training reads: there, and of its plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from dinomed3d.runtime.errors import UserError


def check_preprocessed(folder: Path, plans: Mapping[str, Any], configuration: str) -> None:
    """Refuse a configuration that is not preprocessed, or whose data another plan has replaced.

    Plans may name the same folder (`nnUNetPlans_3d_fullres`), and preprocessing with one of them
    replaces what is in it; if that one has another spacing, the shape of a case shows it.

    Args:
        folder: of its preprocessed data.
        plans: the plan.
        configuration: its name in the plan.

    Raises:
        UserError: the folder does not exist or holds no cases, or the first one has another shape
            than the plan's spacing gives it.
    """
    number = int(plans["dataset_name"][len("Dataset") :].partition("_")[0])
    todo = (
        f"run nnUNetv2_preprocess -d {number} -plans_name {plans['plans_name']} -c {configuration}"
    )
    if not any(folder.glob("*.pkl")):
        raise UserError(
            f"{folder}: there are no preprocessed cases of {configuration} in {plans['plans_name']}; {todo}"
        )
    dataset = infer_dataset_class(str(folder))
    case = min(dataset.get_identifiers(str(folder)))
    data, _, _, properties = dataset(str(folder), [case]).load_case(case)
    expected = planned_shape(properties, plans, configuration)
    found = [int(side) for side in data.shape[1:]]
    if expected is not None and found != expected:
        raise UserError(
            f"{folder}: case {case} has the shape {found}, and {plans['plans_name']} makes it {expected}: it was "
            f"preprocessed with another plan. If nothing else trains from these data, {todo}"
        )


def planned_shape(
    properties: Mapping[str, Any], plans: Mapping[str, Any], configuration: str
) -> list[int] | None:
    """The shape (Z, Y, X) that nnU-Net's preprocessing gives a case, or None where it does not resample.

    Args:
        properties: that it stored with the case.
        plans: the plan.
        configuration: its name in the plan.
    """
    manager = PlansManager(dict(plans))
    planned = manager.get_configuration(configuration)
    resampling = planned.configuration["resampling_fn_data"]
    if planned.preprocessor_name != "DefaultPreprocessor" or not resampling.startswith("resample"):
        return None
    spacing = [properties["spacing"][axis] for axis in manager.transpose_forward]
    target = [*spacing[: 3 - len(planned.spacing)], *planned.spacing]  # 2d keeps the slices apart
    before = properties["shape_after_cropping_and_before_resampling"]
    return [int(side) for side in compute_new_shape(before, spacing, target)]
