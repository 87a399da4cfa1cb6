"""What earlier runs have left in the output folder: which cases are done, and what must not be replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dinomed3d.inference.case import Case, CaseList
from dinomed3d.inference.cohort.record import (
    OTHERS,
    Record,
    describe_inputs,
    is_edited,
    read_record,
    why_outdated,
)
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.io.image import MASK_ENDINGS
from dinomed3d.inference.models.model import Model
from dinomed3d.inference.report.anonymous import TABLE_FILE
from dinomed3d.runtime.errors import UserError

COLOUR_TABLE = "labels.ctbl"
"""Names and colours of the labels, for 3D Slicer."""
REPORTS = ("run.json", "report.html", "report.csv", "statistics.json", TABLE_FILE, COLOUR_TABLE)
"""Files that a run writes in addition to those of its cases."""


@dataclass(frozen=True)
class Worklist:
    """The cases of a run by what is to be done with them."""

    todo: list[Case] = field(default_factory=list)
    """Cases to predict."""
    kept: list[str] = field(default_factory=list)
    """Cases done by an earlier run, whose results were verified."""
    failed: list[str] = field(default_factory=list)
    """Cases that failed in an earlier run and are not tried again."""
    edited: list[str] = field(default_factory=list)
    """Kept cases whose mask was corrected by hand."""
    completed: list[str] = field(default_factory=list)
    """Kept cases for which files or statistics were made that the earlier run was not asked for."""
    blocked: dict[str, str] = field(default_factory=dict)
    """Case that is not predicted, since a file of its name is not from a run of ours -> which."""
    redone: dict[str, str] = field(default_factory=dict)
    """Case to predict again -> why its earlier results are not valid."""


def compare_with_output(
    cases: Iterable[Case], out: Path, model: Model, spec: PredictSpec
) -> Worklist:
    """Sort cases by what an earlier run has done with them.

    Raises:
        UserError: the output folder contains results of another model or of other settings.
    """
    work = Worklist()
    for case in cases:
        record = read_record(out, case.id)
        foreign = foreign_file(case.id, out) if record is None else None
        if foreign is not None:
            work.blocked[case.id] = foreign
            continue
        if record is None or spec.overwrite:
            work.todo.append(case)
            continue
        _check_same_run(record, out, model, spec)
        if record["status"] == "failed":
            if record["inputs"] != describe_inputs(case, model.channels):
                work.redone[case.id] = "it had failed, and its files have changed since"
                work.todo.append(case)
            elif spec.retry_failed:
                work.todo.append(case)
            else:
                work.failed.append(case.id)
            continue
        if record["status"] == "begun":
            reason: str | None = "it was interrupted"
        elif record["status"] == "damaged":
            reason = "its record is incomplete"
        else:
            reason = why_outdated(record, out, case, model.channels)
        if reason is not None:
            work.redone[case.id] = reason
            work.todo.append(case)
            continue
        work.kept.append(case.id)
        if is_edited(record, out):
            work.edited.append(case.id)
    return work


def _files_of(case: str, out: Path) -> list[Path]:
    """Paths of all files that a run writes for a case."""
    return [out / f"{case}{ending}" for ending in dict.fromkeys((".json", *MASK_ENDINGS, *OTHERS))]


def protect_inputs(found: CaseList, out: Path) -> None:
    """Check that no result can replace a scan, nor a report that is not ours.

    Raises:
        UserError: it would.
    """
    inputs = {
        os.path.realpath(path)
        for case in found.cases
        for scan in case.scans
        for path in ([scan.archive] if scan.archive is not None else scan.files)
    }
    inputs |= {os.path.realpath(path) for one in found.rejected for path in one.files}
    for case in found.cases:
        for path in _files_of(case.id, out):
            if os.path.realpath(path) in inputs:
                raise UserError(
                    f"-o {out}: {path} is an input that a result would replace; use another folder"
                )
    existing = [out / name for name in REPORTS if (out / name).exists()]
    try:
        ours = not existing or "spec" in json.loads((out / REPORTS[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise UserError(
            f"{existing[0]} exists already and is not from a run of ours; use another folder for -o"
        )


def foreign_file(case: str, out: Path) -> str | None:
    """Why a case without a record of ours cannot be predicted: a file has the name of its results."""
    found = next((path for path in _files_of(case, out) if path.exists()), None)
    if found is None:
        return None
    return (
        f"{found} exists already and has no record of a run of ours (or its record is damaged), and is "
        "not replaced; move it away, or use another folder for -o"
    )


def _check_same_run(record: Record, out: Path, model: Model, spec: PredictSpec) -> None:
    """Refuse to mix masks of two models or two settings in one folder."""
    earlier = (record.get("model") or {}).get("hash")
    if earlier != model.hash:
        raise UserError(
            f"-o {out}: contains results of another model (case {record['case']}: {str(earlier)[:12]}, now "
            f"{model.hash[:12]}); use another folder, or --overwrite to predict all cases again"
        )
    if record["status"] in ("begun", "damaged"):
        return
    for name, value in spec.settings.items():
        before = record["settings"].get(name)
        if before != value:
            raise UserError(
                f"-o {out}: contains results made with other settings (case {record['case']}: {name} was "
                f"{before}, now {value}); use another folder, the earlier settings, or --overwrite to "
                "predict all cases again"
            )
