"""Which preprocessed data our plans share with nnU-Net's, and which never."""

from __future__ import annotations

import json
from typing import Any

import pytest

from planners.nnunet import DinoMed3DPlanner
from tests.planners.conftest import INTENSITY, MakeDataset


def names(**settings: Any) -> dict[str, str]:
    """Names of the data by configuration, as the planner gives them."""
    planner = DinoMed3DPlanner(902, **settings)
    return {c: planner.generate_data_identifier(c) for c in SHARED}


SMALL = (8, 32, 32)
"""What is planned for it is known at once."""
SHARED = {
    "2d": "nnUNetPlans_2d",
    "3d_fullres": "nnUNetPlans_3d_fullres",
    "3d_lowres": "DinoMed3DPlans_3d_lowres",  # as coarse as our patches want
}


@pytest.mark.parametrize(
    "settings",
    [
        {"overwrite_target_spacing": [2.5, 0.5, 0.5]},
        {"preprocessor_name": "NoResamplingPreprocessor"},
        {"plans_name": "Mine"},
        {"suppress_transpose": True},
    ],
)
def test_settings_that_may_change_the_data_have_data_of_their_own(
    make_dataset: MakeDataset, settings: dict[str, Any]
) -> None:
    make_dataset(SMALL)
    own = settings.get("plans_name", "DinoMed3DPlans")
    assert names(**settings) == {c: f"{own}_{c}" for c in SHARED}
    assert names(gpu_memory_target_in_gb=24) == SHARED  # patches and batches change no voxel


OTHERWISE: list[dict[str, Any]] = [
    {"spacing": [5.0, 0.5, 0.5]},
    {"normalization_schemes": ["CTNormalization"]},
    {"use_mask_for_norm": [True]},
    {"resampling_fn_data_kwargs": {"order": 1}},
    {"preprocessor_name": "Other"},
    {"transpose_forward": [2, 0, 1]},
    {"foreground_intensity_properties_per_channel": {"0": INTENSITY | {"mean": 101.0}}},
]


def test_another_plan_that_names_the_data_must_preprocess_alike(
    make_dataset: MakeDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_dataset(SMALL)
    DinoMed3DPlanner(902).plan_experiment()
    plan = json.loads((folder / "DinoMed3DPlans.json").read_text())
    full = plan["configurations"]["3d_fullres"]
    for changes in ({}, *OTHERWISE):
        theirs = plan | {k: v for k, v in changes.items() if k in plan}
        of_full = {k: v for k, v in changes.items() if k in full}
        theirs["configurations"] = {"3d_fullres": full | of_full}
        (folder / "nnUNetPlans.json").write_text(json.dumps(theirs))
        capsys.readouterr()
        own = {"3d_fullres": "DinoMed3DPlans_3d_fullres"} if changes else {}
        assert names() == SHARED | own, changes
        said = capsys.readouterr().out
        assert all(f"nnUNetPlans.json has another {key!r}" in said for key in changes)
