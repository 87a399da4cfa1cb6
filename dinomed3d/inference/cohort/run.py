"""A whole run: find cases, leave what is done, have the rest done, report."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dinomed3d.inference.case import Case, CaseList, RejectedInput
from dinomed3d.inference.cohort.record import (
    MASKS,
    OTHERS,
    Record,
    describe_model,
    failed_record,
    is_edited,
    outdated,
    read_record,
    remove_leftovers,
    write_failure,
)
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker_process import WorkerProcess, supervise
from dinomed3d.inference.discovery.find_cases import find_cases
from dinomed3d.inference.models.model import Model, open_model
from dinomed3d.inference.report.quality import TrainingRange
from dinomed3d.inference.report.run_report import write_report
from dinomed3d.runtime.atomic_files import write_once
from dinomed3d.runtime.errors import UserError

ProgressCallback = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run has to do."""

    todo: tuple[Case, ...]
    kept: tuple[str, ...]
    """Done by an earlier run, and verified."""
    failed: tuple[str, ...]
    """Failed in an earlier run, not tried again."""
    edited: tuple[str, ...]
    """Of the kept ones, those whose mask someone has corrected; they stay as they are."""
    redone: Mapping[str, str]
    """Case -> why what an earlier run left does not do."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    done: tuple[str, ...]
    failed: Mapping[str, str]
    """Case -> reason, refused ones too."""
    missing: tuple[str, ...]
    """Neither done nor failed: interrupted, or another shard's and not yet there."""
    report: Path


def predict(spec: PredictSpec, tell: ProgressCallback) -> Outcome:
    """Predict everything below the input.

    Args:
        spec: what is asked for.
        tell: told what happens, from any thread: see `worker`, and {"event": "found", ...} before.

    Returns:
        What is there now, of this shard.

    Raises:
        UserError: nothing can be done at all; says why.
        KeyboardInterrupt: after the report of what was done until then.
    """
    standby = WorkerProcess(spec) if spec.engine == "process" else None
    try:
        return _predict(spec, tell, standby)
    finally:
        if standby is not None:
            standby.end()


def _predict(spec: PredictSpec, tell: ProgressCallback, standby: WorkerProcess | None) -> Outcome:
    started = time.time()
    out = Path(spec.out)
    if standby is not None:
        model = standby.model()
    else:
        model = open_model(Path(spec.model), folds=spec.folds, checkpoint=spec.checkpoint)
    if spec.dicom_seg:
        check_segmentations(model)
    if out.resolve() == Path(spec.source).resolve():
        raise UserError(
            f"-o must be another folder than -i: masks would take the names of scans in {out}"
        )
    cohort = find_cases(
        Path(spec.source), channels=model.channels, patterns=spec.patterns, skip=[out]
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        protect(cohort, out)
        cases, refusals = take_shard(cohort, spec.shard, out)
        plan = compare(cases, out, model, spec)
        remove_leftovers(out, [case.id for case in cases])
        for refusal in refusals:
            refuse(refusal, out, model, spec)
    except OSError as error:
        raise UserError(f"-o {out}: cannot be written to ({error.strerror or error})") from error
    tell(
        {
            "event": "found",
            "cases": len(cases),
            "todo": len(plan.todo),
            "kept": len(plan.kept),
            "edited": len(plan.edited),
            "failed": len(plan.failed),
            "refused": len(refusals),
            "redone": dict(plan.redone),
            "ignored": dict(cohort.ignored),
        }
    )
    try:
        run_engine(model, spec, plan.todo, tell, standby)
    except BaseException:
        # what stopped the run is what the user must hear of, even if there is no report then
        with suppress(OSError):
            conclude(cohort, spec, model, cases, refusals, plan.edited, started)
        raise
    try:
        return conclude(cohort, spec, model, cases, refusals, plan.edited, started)
    except OSError as error:
        raise UserError(
            f"-o {out}: the report cannot be written ({error.strerror or error}); all masks are complete"
        ) from error


def check_segmentations(model: Model) -> None:
    """Whether DICOM segmentations can be written at all, before hours are spent.

    Raises:
        UserError: highdicom is not installed, or DICOM cannot hold a label's name.
    """
    from dinomed3d.inference.dicom.segments import foreground_labels

    if any(importlib.util.find_spec(name) is None for name in ("highdicom", "pydicom")):
        raise UserError(
            "--dicom-seg needs highdicom, which is not installed: pip install 'dinomed3d[dicom]'"
        )
    foreground_labels(model.labels)


def run_engine(
    model: Model,
    spec: PredictSpec,
    cases: tuple[Case, ...],
    tell: ProgressCallback,
    standby: WorkerProcess | None,
) -> None:
    """Have the cases done by the engine that was asked for."""
    if not cases:
        return
    if spec.engine == "threads":
        from dinomed3d.inference.cohort.worker import Worker

        Worker(model, spec).run(cases, tell)
    elif standby is not None:
        supervise(model, spec, cases, tell, standby)
    else:
        from dinomed3d.inference.cohort.ray_backend import run_cluster

        run_cluster(model, spec, cases, tell)


def protect(cohort: CaseList, out: Path) -> None:
    """Make sure that no result can take the place of a scan, or of a report that is not ours.

    Raises:
        UserError: it would.
    """
    inputs = {
        os.path.realpath(path)
        for case in cohort.cases
        for scan in case.scans
        for path in ([scan.archive] if scan.archive is not None else scan.files)
    }
    inputs |= {os.path.realpath(path) for refusal in cohort.refusals for path in refusal.files}
    for case in cohort.cases:
        for ending in (".json", *MASKS, *OTHERS):
            path = out / f"{case.id}{ending}"
            if os.path.realpath(path) in inputs:
                raise UserError(
                    f"-o {out}: {path} is an input, and a result would take its place; use another folder"
                )
    reports = [out / name for name in ("run.json", "report.html", "report.csv")]
    there = [path for path in reports if path.exists()]
    try:
        ours = not there or "spec" in json.loads(reports[0].read_text(encoding="utf-8"))
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise UserError(
            f"{there[0]} is there already and is not of a run of ours; use another folder for -o"
        )


def take_shard(
    cohort: CaseList, shard: tuple[int, int] | None, out: Path
) -> tuple[tuple[Case, ...], tuple[RejectedInput, ...]]:
    """This shard's cases and refusals, about equal in bytes.

    The first shard to start writes the division into the output, and all others keep to it, also if
    scans have come in between.
    """
    if shard is None:
        return cohort.cases, cohort.refusals
    number, count = shard
    path = out / f".division-into-{count}.json"
    write_once(path, json.dumps(divide(cohort.cases, count)).encode("ascii"))
    division = json.loads(path.read_text(encoding="ascii"))

    def place(name: str) -> int:
        # what has come since is divided by its name alone, the same for all
        late = int(hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest(), 16) % count
        return int(division.get(name, late + 1))

    mine = tuple(case for case in cohort.cases if place(case.id) == number)
    return mine, tuple(refusal for refusal in cohort.refusals if place(refusal.id) == number)


def divide(cases: Iterable[Case], count: int) -> dict[str, int]:
    """Case -> shard from 1: the largest first, each to the shard that has least."""
    loads = [0] * count
    division = {}
    for case in sorted(cases, key=lambda case: (-case.size_bytes, case.id)):
        least = loads.index(min(loads))
        loads[least] += max(1, case.size_bytes)
        division[case.id] = least + 1
    return division


def compare(cases: Iterable[Case], out: Path, model: Model, spec: PredictSpec) -> Plan:
    """What of the cases an earlier run has done, and what is to do.

    Raises:
        UserError: the output holds results of another model or of other settings, or files that no run
            of ours has written.
    """
    todo: list[Case] = []
    kept: list[str] = []
    failed: list[str] = []
    edited: list[str] = []
    redone: dict[str, str] = {}
    for case in cases:
        record = read_record(out, case.id)
        if record is None:
            nothing_foreign(case.id, out)
        if record is None or spec.overwrite:
            todo.append(case)
            continue
        _same_run(record, out, model, spec)
        why = None
        if record["status"] == "begun":
            why = "it was interrupted"
        elif record["status"] == "damaged":
            why = "its record does not tell all it must"
        elif record["status"] == "done":
            why = outdated(record, out, case, model.channels)
        elif not spec.retry_failed:
            failed.append(case.id)
            continue
        if why is not None:
            redone[case.id] = why
        if why is not None or record["status"] == "failed":
            todo.append(case)
            continue
        kept.append(case.id)
        if is_edited(record, out):
            edited.append(case.id)
    return Plan(
        todo=tuple(todo),
        kept=tuple(kept),
        failed=tuple(failed),
        edited=tuple(edited),
        redone=redone,
    )


def nothing_foreign(case: str, out: Path) -> None:
    """Refuse to replace files that are not from a run of ours.

    Raises:
        UserError: there are such files.
    """
    for ending in (".json", *MASKS, *OTHERS):
        path = out / f"{case}{ending}"
        if path.exists():
            raise UserError(
                f"{path} is there already and has no record of a run of ours; move it away, or use another "
                "folder for -o"
            )


def _same_run(record: Record, out: Path, model: Model, spec: PredictSpec) -> None:
    """Refuse to mix masks of two models or two settings in one folder."""
    theirs = (record.get("model") or {}).get("hash")
    if theirs != model.hash:
        raise UserError(
            f"{out} holds results of another model (case {record['case']}: {str(theirs)[:12]}, now "
            f"{model.hash[:12]}); use another folder for -o, or --overwrite to do all cases again"
        )
    if record["status"] in ("begun", "damaged"):
        return
    settings = record.get("settings", {})
    other = [name for name, value in spec.settings.items() if settings.get(name) != value]
    if other:
        name = other[0]
        raise UserError(
            f"{out} holds results made with other settings (case {record['case']}: {name} was "
            f"{settings.get(name)}, now {spec.settings[name]}); use another folder for -o, the settings of "
            "then, or --overwrite to do all cases again"
        )


def refuse(refusal: RejectedInput, out: Path, model: Model, spec: PredictSpec) -> None:
    """Write the record of what could not be a case; an earlier mask is kept as `CASE.earlier1...`."""
    if read_record(out, refusal.id) is None:
        nothing_foreign(refusal.id, out)
    record = failed_record(refusal, refusal.reason, model, spec)
    write_failure(out, record, keep="earlier")


def conclude(
    cohort: CaseList,
    spec: PredictSpec,
    model: Model,
    mine: Iterable[Case],
    refusals: Iterable[RejectedInput],
    edited: Iterable[str],
    started: float,
) -> Outcome:
    """Write the report of everything that is in the output, and sum this shard up."""
    out = Path(spec.out)
    names = sorted([case.id for case in cohort.cases] + [r.id for r in cohort.refusals])
    there = _finished(out, names)
    while True:
        run = {
            "model": {"source": str(model.source), **describe_model(model)},
            "spec": replace(spec, shard=None).to_json(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
            "seconds": round(time.time() - started, 1),
            "devices": sorted(
                {f"{r['device']}, {r['precision']}" for r in there.values() if "device" in r}
            ),
            "ignored": dict(cohort.ignored),
            "not_judged": TrainingRange.of(model).not_judged,
            "missing": [name for name in names if name not in there],
        }
        shown = [flag_edited(there[name]) if name in edited else there[name] for name in there]
        if spec.orientation is None:
            shown = flag_orientations(shown)
        write_report(out, shown, run)
        # another shard may have ended a case meanwhile, and its own report may be the one replaced here
        seen, there = there.keys(), _finished(out, names)
        if there.keys() == seen:
            break
    own = [case.id for case in mine] + [refusal.id for refusal in refusals]
    failed = {n: str(there[n]["reason"]) for n in own if n in there and there[n]["status"] == "failed"}  # fmt: skip
    return Outcome(
        done=tuple(n for n in own if n in there and n not in failed),
        failed=failed,
        missing=tuple(n for n in own if n not in there),
        report=out / "report.html",
    )


def flag_edited(record: Record) -> Record:
    """Say that a mask has been corrected since: what was measured is of the prediction."""
    text = "corrected by hand since; volumes, certainty and preview are those of the prediction"
    return record | {"flags": [*record["flags"], text]} if record["status"] == "done" else record


def flag_orientations(records: list[Record]) -> list[Record]:
    """Flag the cases whose axes point elsewhere than most of the run's: a network may never have seen that.

    Which way the training volumes lay, no model of nnU-Net's says; so the run is compared with itself.
    """
    counts = Counter(record["orientation"] for record in records if record["status"] == "done")
    if len(counts) < 2:
        return records
    usual, often = counts.most_common(1)[0]
    if often * 2 <= counts.total():
        return records
    flagged = []
    for record in records:
        own = record.get("orientation", usual)
        if own != usual:
            text = (
                f"stored as {own}, most scans of this run as {usual}: this network sees voxels as they are "
                "stored, so compare this mask with care, or use --orientation"
            )
            record = record | {"flags": [*record["flags"], text]}
        flagged.append(record)
    return flagged


def _finished(out: Path, names: Iterable[str]) -> dict[str, Record]:
    """The records of the cases that are done or have failed."""
    records = {name: read_record(out, name) for name in names}
    ended = ("done", "failed")
    return {n: r for n, r in records.items() if r is not None and r["status"] in ended}
