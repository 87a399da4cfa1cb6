"""What becomes of a run that another one replaces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dinomed3d.runtime.errors import UserError
from pointseg.training import loop
from pointseg.training.run import run_dir
from pointseg.training.run.run_dir import (
    LOCK,
    PREVIOUS,
    backup_previous_run,
    check_run_dir,
    delete_backup,
    lock_run_dir,
)
from pointseg.training.train import train
from tests.pointseg.tiny import Boxes, spec


def made(folder: Path, mark: str, *names: str) -> None:
    """Files and folders of a run that say whose they are."""
    for name in names:
        path = folder / name / "events" if name in ("tensorboard", "pictures") else folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(mark)


def held(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


WHOLE = ("last.pt", "best.pt", "metrics.csv", "curves.png", "tensorboard", "pictures")


def test_a_run_is_moved_and_what_is_not_its_own_stays(tmp_path: Path) -> None:
    assert backup_previous_run(tmp_path / "none") is None and backup_previous_run(tmp_path) is None
    made(tmp_path, "old", *WHOLE, "notes.txt")
    assert backup_previous_run(tmp_path) == tmp_path / PREVIOUS
    assert {path.name for path in tmp_path.iterdir()} == {PREVIOUS, "notes.txt"}
    moved = {f"{n}/events" if n in ("tensorboard", "pictures") else n for n in WHOLE}
    assert held(tmp_path / PREVIOUS) == dict.fromkeys(moved, "old")
    assert backup_previous_run(tmp_path) is None  # a run that wrote nothing leaves nothing to move
    assert len(held(tmp_path / PREVIOUS)) == len(WHOLE)
    delete_backup(tmp_path)
    delete_backup(tmp_path)
    assert held(tmp_path) == {"notes.txt": "old"}


@pytest.mark.parametrize(
    ("files", "options", "named"),
    [
        ((), {"resume": True}, "--resume: .*last.pt"),
        (("previous/best.pt",), {"resume": True}, "--resume: .*previous"),
        (("best.pt",), {"resume": True}, "--resume: .*last.pt"),
        (("last.pt",), {}, "--out .*--resume.*--overwrite"),
        (("best.pt", "last.pt"), {}, "--out .*--resume.*--overwrite"),
        (("best.pt",), {}, "--out .*best.pt.*--overwrite"),
    ],
)
def test_folders_that_are_refused(
    tmp_path: Path, files: tuple[str, ...], options: dict[str, bool], named: str
) -> None:
    made(tmp_path, "old", *files)
    with pytest.raises(UserError, match=named):
        check_run_dir(tmp_path, **{"resume": False, "overwrite": False, **options})


def test_a_run_without_a_best_model_does_not_push_out_one_that_has_it(tmp_path: Path) -> None:
    made(tmp_path, "old", *WHOLE)
    backup_previous_run(tmp_path)
    made(tmp_path, "stopped early", "last.pt", "tensorboard")
    assert backup_previous_run(tmp_path) is None
    assert not (tmp_path / "last.pt").exists() and not (tmp_path / "tensorboard").exists()
    assert set(held(tmp_path / PREVIOUS).values()) == {"old"}
    made(tmp_path, "newer", *WHOLE)
    assert backup_previous_run(tmp_path) == tmp_path / PREVIOUS
    assert set(held(tmp_path / PREVIOUS).values()) == {"newer"}


def test_two_runs_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    with lock_run_dir(out), lock_run_dir(out):  # a command locks it before its training does
        assert (out / LOCK).exists()
        monkeypatch.setattr(run_dir, "is_held_here", lambda path: False)  # as in another process
        with pytest.raises(UserError, match=f"--out .*run: process {os.getpid()} .* is training"):
            train(spec(out))
        assert [path.name for path in out.iterdir()] == [LOCK]
    assert not out.exists()


@pytest.mark.slow
def test_a_new_run_that_fails_leaves_the_old_one_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = train(spec(tmp_path)).best.read_bytes()
    said: list[str] = []
    with pytest.raises(UserError, match="is truncated"):
        train(spec(tmp_path, dataset=Boxes(broken=("train3",)), log=said.append))
    assert said[:1] == [
        f"the previous run in {tmp_path} is kept in {tmp_path / PREVIOUS} until this one has its first best.pt"
    ]
    assert not (tmp_path / "best.pt").exists() and (tmp_path / "last.pt").exists()
    assert (tmp_path / PREVIOUS / "best.pt").read_bytes() == old
    # the next one, which gets as far as its first validation, takes its place
    there: list[bool] = []
    validate = loop.TrainingLoop.validate

    def looked(run: Any) -> Any:
        there.append((tmp_path / PREVIOUS / "best.pt").is_file())
        return validate(run)

    monkeypatch.setattr(loop.TrainingLoop, "validate", looked)
    train(spec(tmp_path, seed=1))
    assert there == [True, False]
    assert not (tmp_path / PREVIOUS).exists() and (tmp_path / "best.pt").read_bytes() != old
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
