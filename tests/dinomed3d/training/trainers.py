"""Trainers on the tiny dataset, and whole trainings of it that may be killed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dinomed3d.training.trainer import DinoMed3DTrainer
from tests.dinomed3d.training.conftest import LABELS, dataset_json, plans


def trainer(
    configuration="3d_fullres", fold=0, labels=LABELS, continued=False, cls=DinoMed3DTrainer
):
    plan = plans() | {"continue_training": continued}
    return cls(plan, configuration, fold, dataset_json(labels), torch.device("cpu"))


def fold_folder(nnunet: Path, configuration="3d_fullres", fold=0) -> Path:
    name = f"DinoMed3DTrainer__nnUNetPlans__{configuration}"
    return nnunet / "results" / "Dataset901_Tiny" / name / f"fold_{fold}"


class Killed(Exception):
    """A kill in the middle of an epoch."""


def run(
    monkeypatch, *, kill_at: tuple[int, int] | None = None, hard=False, continued=False
) -> DinoMed3DTrainer:
    """Train from one seed; perhaps stop at (epoch, iteration), as by Ctrl-C, or hard: as by a power cut, after
    which nothing of Python runs; perhaps continue an earlier run."""
    torch.manual_seed(5)
    np.random.seed(5)
    t = trainer(continued=continued)
    if continued:
        t.load_checkpoint(str(Path(t.output_folder) / "checkpoint_latest.pth"))
    step = t.train_step

    def stepping(batch):
        if kill_at == (t.current_epoch, t.iteration):
            if hard:
                monkeypatch.setattr(t.pending, "write", lambda: [])
            raise Killed
        return step(batch)

    monkeypatch.setattr(t, "train_step", stepping)
    t.run_training()
    return t
