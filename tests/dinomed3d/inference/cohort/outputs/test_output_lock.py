"""One run at a time in an output folder; shards share it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dinomed3d.inference.cohort.events import CasesFound
from dinomed3d.inference.cohort.outputs.output_lock import hold_output
from dinomed3d.inference.cohort.run import predict
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.file_lock import is_held_here
from tests import ROOT
from tests.dinomed3d.inference.cohort.runs import run

HOLD = """
import sys
from pathlib import Path
from dinomed3d.inference.cohort.outputs.output_lock import hold_output
with hold_output(Path(sys.argv[1]), None):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_holds_its_folder_until_it_ends(spec) -> None:
    out, held = Path(spec.out), []

    def watch(event) -> None:
        held.append((is_held_here(out / ".lock"), isinstance(event, CasesFound)))

    predict(spec, watch)
    assert held[0] == (True, True) and all(is_held for is_held, _ in held)
    assert not list(out.glob(".lock*"))


def test_a_second_run_is_refused_and_touches_nothing(spec) -> None:
    run(spec)
    out = Path(spec.out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, spec.out],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        encoding="utf-8",
    )
    with other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        says = (
            f"^-o {re.escape(spec.out)}: process {other.pid} is at work there; wait for it to end"
        )
        with pytest.raises(UserError, match=says):
            run(spec, overwrite=True)
        lock = json.loads((out / ".lock").read_bytes())
        assert not lock["command"], "it may name folders of patients"
        now = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".lock"}
        assert now == before
        with pytest.raises(UserError, match=f"^-o OUT: process {other.pid} is at work there"):
            run(spec, anonymous=True)
        other.kill()
    run(spec, overwrite=True)  # what a killed one leaves is taken over
    assert json.loads((out / "run.json").read_text("utf-8"))["missing"] == []


def test_shards_share_the_folder(spec) -> None:
    out = Path(spec.out)
    with hold_output(out, (1, 2)):
        run(replace(spec, shard=(2, 2)))
        with pytest.raises(UserError, match="at work there"):
            run(replace(spec, shard=(1, 2)))
    run(replace(spec, shard=(1, 2)))


@pytest.mark.parametrize(
    ("one", "other"), [(None, (1, 2)), ((1, 2), None), ((1, 2), (1, 4)), ((1, 2), (2, 4))]
)
def test_runs_that_may_have_the_same_cases_exclude_each_other(tmp_path: Path, one, other) -> None:
    with hold_output(tmp_path, one), pytest.raises(UserError, match="is at work there"):  # noqa: SIM117
        with hold_output(tmp_path, other):
            pass
    with hold_output(tmp_path, other):
        pass
    assert not list(tmp_path.iterdir())


def test_what_killed_runs_leave_keeps_nobody_out(tmp_path: Path) -> None:
    for name in (".lock", ".lock-1-of-4"):
        (tmp_path / name).write_text('{"pid": 1, "host": "elsewhere", "command": ""}')
    with hold_output(tmp_path, (1, 2)):
        pass


def test_a_lock_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(UserError, match=r"\.lock: cannot be written to"),
        hold_output(tmp_path, None),
    ):
        pass


def test_a_run_that_fails_lets_go(spec, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("dinomed3d.inference.cohort.run.run_engine", broken)
        with pytest.raises(RuntimeError):
            run(spec)
    assert not list(Path(spec.out).glob(".lock*"))
    run(spec)
