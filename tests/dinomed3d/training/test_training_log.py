"""What a training prints and draws."""

from __future__ import annotations

from pathlib import Path

import torch

from dinomed3d.training.nnunet_plan import DECISIONS, RECIPE
from dinomed3d.training.trainer import DinoMed3DTrainer
from tests.dinomed3d.training.conftest import dataset_json, plans


def test_decisions_stay_in_the_plan_and_out_of_the_log(nnunet, capsys):
    plan = plans()
    rows = [{"what": "patch", "value": "6 x 20 x 16", "why": "a long explanation"}]
    plan["configurations"]["3d_fullres"] |= {DECISIONS: rows, RECIPE: {"clip": 0.125}}
    t = DinoMed3DTrainer(plan, "3d_fullres", 0, dataset_json(), torch.device("cpu"))
    t.print_plans()
    for printed in (capsys.readouterr().out, Path(t.log_file).read_text()):
        assert "a long explanation" not in printed and DECISIONS not in printed
        assert "0.125" in printed and "'patch_size': [6, 20, 16]" in printed  # the rest is there
    assert t.configuration_manager.configuration[DECISIONS] == rows
    assert t.plans_manager.plans["configurations"]["3d_fullres"][DECISIONS] == rows
