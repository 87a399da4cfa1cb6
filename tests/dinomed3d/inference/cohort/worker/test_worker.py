"""Errors in the steps of a case, of the disk and of the user, and what they cost."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort import outcome as outcome_module
from dinomed3d.inference.cohort import run as run_module
from dinomed3d.inference.cohort.outputs import deliverables, remove_results
from dinomed3d.inference.cohort.outputs.output_errors import ends_run
from dinomed3d.inference.cohort.worker import case_input, case_output, case_prediction
from dinomed3d.inference.cohort.worker.case_task import CaseTask
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import WriteError
from tests.dinomed3d.inference.cohort.runs import done_in, record, run, worklist, write_scan


def during(monkeypatch, module, name, action):
    """Have `action(number of the call)` run before each call of a function of a module."""
    real, calls = getattr(module, name), []

    def wrapped(*arguments, **options):
        calls.append(1)
        action(len(calls))
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, wrapped)


def raising(error, *, at):
    def action(number):
        if number == at:
            raise error

    return action


def full(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_scan_that_changes_during_the_run(spec, monkeypatch):
    first = Path(spec.source) / "scan0.nii.gz"
    real = case_input.read_case

    def read_case(case, channels):
        volume = real(case, channels)
        if case.id == "scan1":
            write_scan(Path(spec.source) / "scan1.nii.gz", 8)
        return volume

    monkeypatch.setattr(case_input, "read_case", read_case)
    during(
        monkeypatch,
        case_prediction,
        "segment",
        lambda number: write_scan(first, 8) if number == 1 else None,
    )
    outcome, _ = run(spec)
    assert "changed" in outcome.failed["scan1"] and outcome.done == ("scan0", "scan2")
    assert "scan0" in worklist(run(spec)[1]).redone


def test_a_failure_while_writing_leaves_no_mask(spec, monkeypatch):
    monkeypatch.setattr(deliverables, "draw_preview", lambda *a, **o: 1 / 0)
    outcome, _ = run(spec, save_probabilities="b2nd")
    assert len(outcome.failed) == 3
    left = {path.name for path in Path(spec.out).iterdir()}
    reports = {"report.html", "report.csv", "run.json", "labels.ctbl"}
    assert left == {*(f"scan{i}.json" for i in range(3)), *reports}


def test_a_full_disk_ends_the_run_with_its_reason(spec, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(UserError, match="No space left"):
        patched.setattr(case_output, "write_record", full)
        patched.setattr(case_output, "write_failure", full)
        run(spec)
    monkeypatch.setattr(outcome_module, "write_report", full)
    with pytest.raises(UserError, match="report.*No space left"):
        run(spec)
    monkeypatch.setattr(run_module, "run_engine", lambda *_: raising(UserError("first"), at=1)(1))
    with pytest.raises(UserError, match="first"):  # not the report, which fails as well
        run(spec, out=spec.out + "2")


def test_a_full_disk_is_no_fault_of_a_failed_case_or_of_a_preview(spec, monkeypatch):
    run(spec)
    monkeypatch.setattr(remove_results, "remove_results", full)
    with pytest.raises(OSError, match="No space left"):
        remove_results.write_failure(Path(spec.out), {"case": "scan1", "reason": "bad"})
    (Path(spec.out) / "scan1.png").unlink()
    monkeypatch.setattr(deliverables, "preview", full)
    with pytest.raises(UserError, match="No space left"):
        run(spec)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EACCES])
def test_a_disk_that_fails_while_a_mask_is_written_is_no_fault_of_the_case(spec, monkeypatch, code):
    def fail(number):
        if number == 2:
            raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched, pytest.raises(UserError, match=os.strerror(code)):
        during(patched, case_output, "write_results", fail)
        run(spec)
    outcome, events = run(spec)  # the same command goes on, without --retry-failed
    assert len(outcome.done) == 3 and not worklist(events).failed
    assert "scan0" not in done_in(events), "what was written before stays"


def test_a_mask_that_a_viewer_has_open_on_windows_costs_one_case():
    locked, full_disk = OSError(errno.EACCES, "denied"), OSError(errno.ENOSPC, "full")
    assert not ends_run(locked, windows=True) and ends_run(locked, windows=False)
    assert ends_run(full_disk, windows=True)


def test_a_file_that_cannot_be_written_says_so():
    task = CaseTask(Case(id="a", scans=()))
    with task.step("write"):
        raise WriteError(errno.EISDIR, "Is a directory", "OUT/a.png")
    assert task.reason == "OUT/a.png: could not be written: Is a directory" and not task.trace


def test_a_file_that_cannot_be_replaced_costs_its_case_alone(spec):
    run(spec)
    out = Path(spec.out)
    write_scan(Path(spec.source) / "scan1.nii.gz", 9)
    write_scan(Path(spec.source) / "scan9.nii.gz", 3)
    (out / "scan1.png").unlink()
    (out / "scan1.png" / "x").mkdir(parents=True)  # as a picture that is open on Windows
    outcome, events = run(spec)
    assert {"scan1", "scan9"} <= done_in(events) and "scan9" in outcome.done
    assert list(outcome.failed) == ["scan1"]
    assert "cannot be removed" in record(spec, "scan1")["reason"]
    assert "scan1.png" in record(spec, "scan1")["reason"]


def test_a_preview_that_cannot_be_replaced_is_a_flag(spec):
    run(spec)
    out = Path(spec.out)
    (out / "scan1.png").unlink()
    (out / "scan1.png" / "x").mkdir(parents=True)
    for _ in range(2):
        outcome, events = run(spec)
        assert len(outcome.done) == 3 and not done_in(events)
        flags = [flag for flag in record(spec, "scan1")["flags"] if "no preview" in flag]
        assert len(flags) == 1 and "scan1.png" in flags[0]


def test_a_scan_that_cannot_be_read_from_the_disk_is(spec, monkeypatch):
    def fail(number):
        if number == 2:
            raise OSError(errno.EIO, "Input/output error")

    during(monkeypatch, case_input, "read_case", fail)
    outcome, _ = run(spec)
    assert "Input/output" in outcome.failed["scan1"] and len(outcome.done) == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (MemoryError("no"), "out of memory in step 'network'"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory in step"),
        (ZeroDivisionError("of ours"), "unexpected ZeroDivisionError in step 'network': of ours"),
    ],
)
def test_an_error_in_a_case_stays_in_that_case(spec, monkeypatch, fault, reason):
    during(monkeypatch, case_prediction, "segment", raising(fault, at=2))
    outcome, _ = run(spec)
    assert outcome.done == ("scan0", "scan2") and reason in outcome.failed["scan1"]
    assert ("trace" in record(spec, "scan1")) == isinstance(fault, ZeroDivisionError)


def test_a_memory_limit_that_no_split_meets(spec):
    write_scan(Path(spec.source) / "large.nii.gz", shape=(60, 50, 40))
    outcome, _ = run(spec, memory_limit_gib=0.01)
    assert len(outcome.failed) == 4
    assert all("--memory-limit" in reason for reason in outcome.failed.values())


def test_interrupted_between_cases(spec, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        during(patched, case_prediction, "segment", raising(KeyboardInterrupt, at=3))
        run(spec)
    out = Path(spec.out)
    assert record(spec, "scan0")["status"] == record(spec, "scan1")["status"] == "done"
    assert not (out / "scan2.nii.gz").exists()
    assert json.loads((out / "run.json").read_text())["missing"] == ["scan2"]
    assert not [t for t in threading.enumerate() if t.name.startswith(("reader", "writer"))]
    outcome, events = run(spec)
    assert done_in(events) == {"scan2"} and len(outcome.done) == 3
