"""When checkpoints are written, by a clock that the tests turn; and what a stop or a kill leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dinomed3d.training.checkpoints.checkpoint import read_checkpoint, snapshot, write_checkpoint
from dinomed3d.training.checkpoints.pending_checkpoints import PendingCheckpoints
from tests.dinomed3d.training.checkpoints.test_checkpoint import COMPLETE
from tests.dinomed3d.training.trainers import Killed, fold_folder, run, trainer


def test_a_snapshot_does_not_follow_training():
    weight, log = torch.ones(2, requires_grad=True), [np.float32(0.5)]
    taken = snapshot({"w": weight, "log": log, "groups": [{"lr": 1.0}]})
    with torch.no_grad():
        weight.zero_()
    log.append(np.float32(0.25))
    assert torch.equal(taken["w"], torch.ones(2)) and not taken["w"].requires_grad
    assert taken["log"] == [0.5] and type(taken["log"][0]) is float


def test_the_newest_content_is_written_when_the_time_has_come(tmp_path):
    now = [100.0]
    pending = PendingCheckpoints(minutes=10, clock=lambda: now[0])
    latest, best = tmp_path / "checkpoint_latest.pth", tmp_path / "checkpoint_best.pth"
    pending.keep(latest, COMPLETE | {"epoch": 1})
    pending.keep(best, COMPLETE | {"epoch": 1})
    pending.keep(latest, COMPLETE | {"epoch": 2})
    now[0] += 599
    assert not pending.is_due() and not list(tmp_path.iterdir())
    now[0] += 1
    assert pending.is_due()
    assert pending.write() == [best, latest]  # in this order, so that no kill loses the best
    assert (read_checkpoint(latest)["epoch"], read_checkpoint(best)["epoch"]) == (2, 1)
    assert not pending.is_due() and pending.write() == []
    pending.keep(latest, COMPLETE)
    pending.discard(latest)
    assert pending.write() == []
    assert PendingCheckpoints(minutes=0).is_due()


def writes_of(monkeypatch) -> list[tuple[str, int]]:
    """Names and epochs of all checkpoints, as they are written."""
    written: list[tuple[str, int]] = []

    def writing(content, path):
        written.append((Path(path).stem.removeprefix("checkpoint_"), content["current_epoch"]))
        write_checkpoint(content, path)

    monkeypatch.setattr(
        "dinomed3d.training.checkpoints.pending_checkpoints.write_checkpoint", writing
    )
    return written


def test_a_short_training_writes_at_its_start_and_at_the_ends_of_its_stages(nnunet, monkeypatch):
    written = writes_of(monkeypatch)
    dice = iter([0.9, 0.9, 0.3, 0.5, 0.7])
    monkeypatch.setenv("DINOMED3D_STAGE2_EPOCHS", "3")
    t = trainer()

    def scripted(outputs):
        for key, value in (("mean_fg_dice", next(dice)), ("val_losses", 0.0)):
            t.logger.log(key, value, t.current_epoch)
        t.logger.log("dice_per_class_or_region", [0.5, 0.5], t.current_epoch)

    t.on_validation_epoch_end = scripted
    t.run_training()
    # the best of every epoch of stage II replaces the one before, unwritten
    assert written == [("latest", 0), ("latest", 2), ("best", 5), ("final", 5)]


def test_every_epoch_is_written_where_the_time_between_is_zero(nnunet, monkeypatch):
    monkeypatch.setenv("DINOMED3D_CHECKPOINT_MINUTES", "0")
    written = writes_of(monkeypatch)
    run(monkeypatch)
    assert [w for w in written if w[0] != "best"] == [
        *(("latest", epoch) for epoch in range(4)),
        ("final", 4),
    ]
    assert ("best", 3) in written


def test_a_kill_loses_what_was_not_written_and_the_resumed_run_ends_as_it_would_have(
    nnunet, monkeypatch
):
    whole = run(monkeypatch)
    expected = {k: v.clone() for k, v in whole.network.state_dict().items()}
    for kill_at, epochs in (((1, 1), 0), ((3, 1), 2)):  # back to the start, to the end of stage I
        with pytest.raises(Killed):
            run(monkeypatch, kill_at=kill_at, hard=True)
        latest = read_checkpoint(fold_folder(nnunet) / "checkpoint_latest.pth")
        assert latest["current_epoch"] == epochs
        resumed = run(monkeypatch, continued=True)
        for key, value in resumed.network.state_dict().items():
            assert torch.equal(value, expected[key]), key
