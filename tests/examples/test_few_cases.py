"""What the benchmark with few cases does with its runs: plans, schedules, scores, tables, without training."""

from __future__ import annotations

import argparse
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from dinomed3d.lifting.weights import read_checkpoint
from dinomed3d.training.settings.environment import RECIPE_VARIABLES, SPEC_VARIABLES
from tests import ROOT

sys.path.insert(0, str(ROOT / "examples" / "benchmarks"))

import few_cases  # noqa: E402
import few_cases_data as data  # noqa: E402
import few_cases_scores as scores  # noqa: E402
import few_cases_table as tables  # noqa: E402
from few_cases_arms import ARMS, SET_HERE, Arm  # noqa: E402
from few_cases_trainers import TRAINERS, Run, ScoredPrimus  # noqa: E402

STEPS = {"cnn": 1.0, "dino": 4.0}
"""Seconds of a step of two arms."""


@pytest.fixture
def work(tmp_path):
    """Results of two seeds of two arms, which took 400 steps."""
    (tmp_path / "runs").mkdir()
    for arm, gain in (("cnn", 0.0), ("dino", 0.1)):
        for seed in (0, 1):
            dice = [0.5 + gain + 0.02 * seed, 0.7 + gain, 0.8 + gain]
            run = {
                "arm": arm,
                "cases": 4,
                "seed": seed,
                "steps": 400,
                "curve": [[100, dice[0]], [200, dice[1]], [400, dice[2]]],
                "scores": [[[0.8 + gain + 0.04 * seed, 2.0, 0.9]], [[0.6 + gain, 4.0, 0.7]]],
                "shuffled_dice": 0.25,
            }
            (tmp_path / "runs" / f"{arm}-4-{seed}.json").write_text(json.dumps(run))
    return tmp_path


def cells(table):
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def test_scores_are_means_with_standard_errors_and_say_whether_training_was_over(work):
    dino, cnn = cells(tables.summary(work))
    assert cnn[4:] == ["0.710 ± 0.010", "3.000 ± 0.000", "0.800 ± 0.000", "0.250 ± 0.000", "+0.290"]
    assert dino[:5] == ["4", ARMS["dino"].what, "2", "400", "0.810 ± 0.010"]


def test_at_equal_cost_an_arm_is_read_where_its_steps_have_taken_as_long(work):
    cost = {arm: {"seconds": s, "tflop": 2 * s, "gib": 1.5} for arm, s in STEPS.items()}
    (work / "cost.json").write_text(json.dumps(cost))
    _, costs, equal = tables.summary(work).split("\n\n")
    assert [row[1:] for row in cells(costs)] == [["4", "8", "1.5"], ["1", "2", "1.5"]]
    # the CNN's 400 s: 133, 267 and 400 of its steps, 33, 67 and 100 of those with tokens
    assert [row[2:] for row in cells(equal)] == [
        ["400", "", "", "0.610"],
        ["400", "0.573", "0.733", "0.800"],
    ]


def test_the_picture_has_both_axes_once_a_step_was_timed(work, monkeypatch):
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: seen.append(figure))
    monkeypatch.setattr(Figure, "tight_layout", lambda *_, **__: None)  # slow
    tables.picture(work)
    (work / "cost.json").write_text(json.dumps({"dino": {"seconds": 4.0}}))  # of an older version
    tables.picture(work)
    (steps,), (above, below) = (figure.axes for figure in seen)
    assert [text.get_text() for text in seen[0].legends[0].texts] == [
        ARMS["dino"].what,
        ARMS["cnn"].what,
    ]
    assert len(steps.lines) == len(above.lines) == 2
    assert [list(line.get_xdata()) for line in below.lines] == [[400, 800, 1600]]
    assert "steps" in above.get_xlabel() and "s" == below.get_xlabel().split()[-1]


def test_regions_overlap_and_what_is_to_be_ignored_counts_nowhere():
    labels = SimpleNamespace(has_regions=True, foreground_regions=[(1, 2), (2,)], ignore_label=3)
    truth, found = np.array([[[0, 1, 2, 3]]]), np.array([[[1, 2, 2, 2]]])
    whole, core = scores.masks(truth, found, labels)
    assert [m.ravel().tolist() for m in whole] == [[0, 1, 1, 0], [1, 1, 1, 0]]
    assert [m.ravel().tolist() for m in core] == [[0, 0, 1, 0], [0, 1, 1, 0]]
    plain = SimpleNamespace(has_regions=False, foreground_labels=[1], ignore_label=None)
    assert [m.ravel().tolist() for m in scores.masks(truth, found, plain)[0]] == [
        [0, 1, 0, 0],
        [1, 0, 0, 0],
    ]


def test_logits_of_any_type_become_labels_those_of_regions_in_nnunets_order():
    logits = torch.tensor([[2.0, 1.0, -1.0], [1.0, 3.0, -1.0]]).view(2, 3, 1, 1).bfloat16()
    plain = LabelManager({"background": 0, "a": 1}, None)
    assert scores.labels_of(logits, plain).ravel().tolist() == [0, 1, 0]
    regions = LabelManager({"background": 0, "whole": [1, 2], "core": 2}, [1, 2])
    logits[1, 0] = -1
    assert scores.labels_of(logits, regions).ravel().tolist() == [1, 2, 0]


def test_the_control_has_the_same_entries_in_another_order_and_the_same_constants(tmp_path):
    state = {
        "blocks.0.weight": torch.arange(60.0).view(3, 20),
        "rope_embed.periods": torch.arange(9.0),
    }
    torch.save({"teacher": state}, tmp_path / "meta.pth")
    data.permute(tmp_path / "meta.pth", tmp_path / "out.safetensors")
    found = read_checkpoint(tmp_path / "out.safetensors")
    assert torch.equal(found["rope_embed.periods"], state["rope_embed.periods"])
    weight = found["blocks.0.weight"]
    assert weight.shape == (3, 20) and not torch.equal(weight, state["blocks.0.weight"])
    assert torch.equal(weight.flatten().sort()[0], torch.arange(60.0))


def test_an_arm_has_the_plan_of_its_planner_with_sides_that_its_network_takes(tmp_path):
    for name, patch in (("plans", [20, 256, 224]), ("nnUNetPlannerResEncM", [20, 252, 224])):
        plan = {"configurations": {"3d_fullres": {"patch_size": patch}}}
        (tmp_path / f"{name}.json").write_text(json.dumps(plan))

    def patch(arm):
        return data.plans_of(arm, tmp_path)["configurations"]["3d_fullres"]["patch_size"]

    assert patch(ARMS["dino"]) == [20, 256, 224]
    assert patch(ARMS["resenc-m"]) == [20, 252, 224]
    assert patch(ARMS["primus-v3-s"]) == [24, 256, 224]


def test_arms_have_trainers_and_settings_that_exist():
    known = {name.removeprefix("DINOMED3D_") for name in (*RECIPE_VARIABLES, *SPEC_VARIABLES)}
    assert SET_HERE < known
    for arm in ARMS.values():
        assert arm.trainer == TRAINERS[arm.trainer].__name__
        assert arm.settings or arm.trainer != Arm(what="").trainer


@pytest.mark.parametrize(("steps", "every", "epochs"), [(600, 100, 2500), (25_000, 1000, 25)])
def test_short_runs_see_the_first_part_of_nnunets_schedule(steps, every, epochs):
    run = Run(arm="primus-v3-s", cases=4, seed=0, steps=steps, every=every)
    assert run.schedule_epochs == epochs
    trainer = object.__new__(ScoredPrimus)
    trainer.__dict__ |= dict(
        run=run,
        num_epochs=6,
        training_stage=None,
        network=torch.nn.Linear(1, 1),
        initial_lr=1.0,
        weight_decay=0.0,
        device=torch.device("cpu"),
        current_epoch=0,
        print_to_log_file=print,
    )
    warm = max(1, round(epochs / 20))
    trainer.optimizer, scheduler = trainer.configure_optimizers()
    assert scheduler.max_steps == trainer.warmup_duration_whole_net == warm
    assert trainer.configure_optimizers("train")[1].max_steps == epochs - warm
    assert trainer.num_epochs == 6


def test_a_run_that_fails_does_not_end_the_others(tmp_path, monkeypatch):
    (tmp_path / "training.txt").write_text("a\nb\nc")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "cnn-3-0.json").write_text("{}")  # finished earlier
    for name in ("prepare", "plan_arms", "permute"):
        monkeypatch.setattr(data, name, lambda *_, **__: None)
    begun = []

    def run(command):
        begun.append(json.loads(command[-1]))
        return SimpleNamespace(returncode=begun[-1]["arm"] == "dino")

    monkeypatch.setattr(few_cases.subprocess, "run", run)
    monkeypatch.setattr(few_cases.os, "environ", {})
    (tmp_path / "weights.pth").touch()
    args = argparse.Namespace(
        dataset=tmp_path,
        work=tmp_path,
        weights=str(tmp_path / "weights.pth"),
        encoder="vit_small_patch14_dinov2",
        token=None,
        arms=["dino", "cnn", "stock"],
        cases=["2", "all"],
        seeds=[0],
        steps=600,
        every=100,
        splits=None,
        small=False,
        cost=False,
    )
    assert few_cases.all_runs(args) == ["dino-2-0", "dino-3-0"]
    assert [(r["arm"], r["cases"]) for r in begun] == [
        ("dino", 2), ("cnn", 2), ("stock", 2), ("dino", 3), ("stock", 3)
    ]  # fmt: skip
    for wrong in ("4", "0", "few"):
        args.cases = [wrong]
        with pytest.raises(SystemExit, match=f"from 1 to 3, or all, got {wrong}"):
            few_cases.all_runs(args)
