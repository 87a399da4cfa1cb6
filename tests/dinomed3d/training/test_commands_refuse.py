"""What nnUNetv2_train and nnUNetv2_plan_experiment say where our trainer or planner cannot begin."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dinomed3d.cli.demo.nnunet_commands import find_command
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.trainer import DinoMed3DTrainer
from planners.nnunet import DinoMed3DPlanner
from tests.dinomed3d.training.conftest import dataset_json, plans


@pytest.mark.parametrize(
    ("build", "program"),
    [
        (lambda: DinoMed3DTrainer({}, "", 0, {}), "nnUNetv2_train"),
        (lambda: DinoMed3DPlanner("Dataset999_None"), "nnUNetv2_plan_experiment"),
    ],
)
def test_errors_of_users_are_one_line_there(monkeypatch, build, program):
    """Whatever they refuse first: nothing is built here."""
    hook = sys.excepthook
    monkeypatch.setattr(sys, "excepthook", hook)
    monkeypatch.setattr(sys, "argv", [str(Path("bin") / program)])
    with pytest.raises(Exception):  # noqa: B017
        build()
    assert sys.excepthook is not hook


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(
    nnunet, monkeypatch, device
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"-device {device}.*-device cpu"):
        DinoMed3DTrainer(plans(), "3d_fullres", 0, dataset_json(), torch.device(device))
    assert not list((nnunet / "results").iterdir())


def test_labels_written_the_wrong_way_round_are_refused_before_anything_is_written(nnunet):
    description = dataset_json() | {"labels": {"0": "background", "1": "a"}}
    with pytest.raises(UserError, match='"labels": {"background": 0, "a": 1}'):
        DinoMed3DTrainer(plans(), "3d_fullres", 0, description, torch.device("cpu"))
    assert not list((nnunet / "results").iterdir())


@pytest.mark.parametrize("emptied", [False, True])
def test_a_plan_that_is_not_preprocessed_is_refused_before_anything_is_written(nnunet, emptied):
    folder = nnunet / "preprocessed" / "Dataset901_Tiny" / "nnUNetPlans_3d_fullres"
    shutil.rmtree(folder)
    if emptied:
        folder.mkdir()
    with pytest.raises(UserError, match=r"nnUNetPlans_3d_fullres.*nnUNetv2_preprocess -d 901"):
        DinoMed3DTrainer(plans(), "3d_fullres", 0, dataset_json(), torch.device("cpu"))
    assert not list((nnunet / "results").iterdir())


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_data_of_another_spacing_are_refused_before_anything_is_written(nnunet, configuration):
    """Another plan that names the same folder may have been preprocessed since."""
    plan = plans()
    plan["configurations"][configuration]["spacing"][-1] = 1.5  # 18 voxels of 1 mm are 12 then
    with pytest.raises(UserError, match=r"case_0.*18\].*12\].*nnUNetv2_preprocess -d 901"):
        DinoMed3DTrainer(plan, configuration, 0, dataset_json(), torch.device("cpu"))
    assert not list((nnunet / "results").iterdir())


@pytest.mark.slow
def test_one_line_and_exit_code_2(nnunet):
    """What else is refused there is tested without a process, here and in test_trainer.py."""
    base = nnunet / "preprocessed" / "Dataset901_Tiny"
    (base / "nnUNetPlans.json").write_text(json.dumps(plans()))
    (base / "dataset.json").write_text(json.dumps(dataset_json()))
    done = subprocess.run(
        [
            find_command("nnUNetv2_train"),
            "901",
            "3d_fullres",
            "0",
            "-tr",
            "DinoMed3DTrainer",
        ],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("nnUNetv2_train: ") and "-device cpu" in last
    assert "Traceback" not in done.stdout + done.stderr
