"""What a training prints and draws."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from dinomed3d.training.progress_plot import stages_marked
from dinomed3d.training.settings.nnunet_plan import DECISIONS, RECIPE
from dinomed3d.training.settings.recipe import Recipe
from dinomed3d.training.settings.step_count import step_count_lines
from dinomed3d.training.trainer import DinoMed3DTrainer
from tests.dinomed3d.training.conftest import dataset_json, plans
from tests.dinomed3d.training.trainers import run


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


@pytest.mark.parametrize(
    ("stages", "each", "counts", "short"),
    [
        ((50, 450), 250, ["12,500", "112,500"], []),
        ((3, 4), 250, ["750", "1,000"], ["stage I "]),
        ((4, 3), 250, ["1,000", "750"], ["stage II "]),
        ((0, 2), 10, ["none", "20"], ["stage II "]),
    ],
)
def test_steps_of_stages_and_those_that_are_few(stages, each, counts, short):
    first, second = stages
    recipe = Recipe(stage1_epochs=first, stage2_epochs=second, iterations_per_epoch=each)
    steps, *warnings = step_count_lines(recipe)
    assert all(f"{n} in stage {name}" in steps for n, name in zip(counts, ("I", "II"), strict=True))
    assert len(warnings) == len(short)
    for line, stage in zip(warnings, short, strict=True):
        setting = "DINOMED3D_STAGE1_EPOCHS" if stage == "stage I " else "DINOMED3D_STAGE2_EPOCHS"
        assert f"WARNING: {stage}" in line and setting in line


def logged(epochs: int) -> LocalLogger:
    logger = LocalLogger()
    for epoch in range(epochs):
        for key, values in logger.my_fantastic_logging.items():
            values.append([0.5, 0.5] if key == "dice_per_class_or_region" else 1.0 + 0.1 * epoch)
    return logger


@pytest.mark.parametrize(
    ("epochs", "begin", "side"),
    [(9, 3, "left"), (5, 3, "right"), (4, 3, "right"), (3, 3, None), (5, 0, None)],
)
def test_the_picture_shows_where_stage_two_begins(monkeypatch, tmp_path, epochs, begin, side):
    """A line between the last epoch of stage I and the first of stage II, once that is there."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: saved.append((figure, path)))
    monkeypatch.setattr("matplotlib.pyplot.tight_layout", lambda: None)  # slow, and moves nothing
    before = Figure.savefig
    with stages_marked(begin):
        logged(epochs).plot_progress_png(str(tmp_path))
    assert Figure.savefig is before
    ((figure, path),) = saved
    assert Path(path).name == "progress.png"
    plots = [axes for axes in figure.axes if axes.get_xlabel() == "epoch"]
    assert len(plots) == 3  # losses, time, learning rate
    for axes in plots:
        lines = [line for line in axes.get_lines() if list(line.get_xdata()) == [begin - 0.5] * 2]
        texts = [text for text in axes.texts if f"stage II from epoch {begin}" in text.get_text()]
        assert len(lines) == len(texts) == (side is not None)
        assert all(text.get_horizontalalignment() == side for text in texts)


def test_the_trainer_marks_its_stages(nnunet, monkeypatch):
    marked = []
    monkeypatch.setattr("dinomed3d.training.progress_plot.mark_stages", lambda *a: marked.append(a))
    monkeypatch.setattr(
        LocalLogger, "plot_progress_png", lambda self, folder: Figure().savefig(f"{folder}/p.png")
    )
    run(monkeypatch)
    assert [begin for _, begin in marked] == [2] * 4
