"""From which checkpoint a training continues, with whose recipe, and what the log says about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint

from dinomed3d.runtime.errors import UserError
from dinomed3d.training.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from tests.dinomed3d.training.trainers import Killed, fold_folder, run, trainer


@pytest.fixture(autouse=True)
def one_step(nnunet, monkeypatch):
    """In each epoch: what counts here are epochs."""
    monkeypatch.setenv("DINOMED3D_ITERATIONS_PER_EPOCH", "1")


def continued_as_by_the_command():
    """What nnU-Net's command does with --c."""
    t = trainer(continued=True)
    maybe_load_checkpoint(t, continue_training=True, validation_only=False)
    return t


def log_of(t) -> str:
    return Path(t.log_file).read_text()


def lengthened_and_killed(monkeypatch) -> None:
    """Four epochs to their end, then two more of four are trained: final has 4 epochs, latest 6."""
    trainer().run_training()
    with monkeypatch.context() as patch:
        patch.setenv("DINOMED3D_STAGE2_EPOCHS", "6")
        t = continued_as_by_the_command()
        step = t.train_step

        def stepping(batch):
            if t.current_epoch == 6:
                raise Killed
            return step(batch)

        t.train_step = stepping
        with pytest.raises(Killed):
            t.run_training()
    monkeypatch.delenv("DINOMED3D_STAGE2_EPOCHS")


def test_the_checkpoint_with_most_epochs_is_continued_and_nothing_newer_lost(nnunet, monkeypatch):
    lengthened_and_killed(monkeypatch)
    folder = fold_folder(nnunet)
    newest = read_checkpoint(folder / "checkpoint_latest.pth")
    assert read_checkpoint(folder / "checkpoint_final.pth")["current_epoch"] == 4
    assert newest["current_epoch"] == 6
    t = continued_as_by_the_command()
    assert (t.current_epoch, t.num_epochs) == (6, 8)  # the lengthened recipe
    for name, value in t.network.state_dict().items():
        assert torch.equal(value, newest["network_weights"][name])
    # trainings that begin within a second share a log
    *_, line = [text for text in log_of(t).splitlines() if "Continuing from" in text]
    assert "checkpoint_latest.pth" in line and "6 of 8 epochs" in line and "stage 2" in line
    assert "checkpoint_final.pth has 4" in line
    t.run_training()
    assert read_checkpoint(folder / "checkpoint_final.pth")["current_epoch"] == 8


def test_validation_takes_the_checkpoint_that_it_names(nnunet, monkeypatch):
    lengthened_and_killed(monkeypatch)
    t = trainer()
    maybe_load_checkpoint(t, continue_training=False, validation_only=True)
    assert t.current_epoch == 4
    continued = continued_as_by_the_command()
    continued.run_training()
    best = fold_folder(nnunet) / "checkpoint_best.pth"
    write_checkpoint(read_checkpoint(best) | {"current_epoch": 7}, best)  # older than the final one
    continued.load_checkpoint(str(best))  # --val_best
    assert continued.current_epoch == 7


def test_a_damaged_checkpoint_among_others_is_named(nnunet, monkeypatch):
    lengthened_and_killed(monkeypatch)
    path = fold_folder(nnunet) / "checkpoint_latest.pth"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="checkpoint_latest.pth"):
        continued_as_by_the_command()
    assert path.stat().st_size == 1000


def test_the_log_says_what_the_environment_changes(nnunet, monkeypatch):
    with pytest.raises(Killed):
        run(monkeypatch, kill_at=(1, 0))
    monkeypatch.setenv("DINOMED3D_STAGE2_EPOCHS", "7")
    monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "2")  # as it is
    monkeypatch.setenv("DINOMED3D_WEIGHTS", "no/such/file")  # the checkpoint holds the encoder
    t = continued_as_by_the_command()
    (line,) = [text for text in log_of(t).splitlines() if "Continuing from" in text]
    assert "1 of 9 epochs" in line and "stage 1" in line
    assert "stage2_epochs 7 instead of 2 (DINOMED3D_STAGE2_EPOCHS)" in line
    assert "STAGE1" not in line and "WEIGHTS" not in line
    assert t.recipe.weights == "none"
