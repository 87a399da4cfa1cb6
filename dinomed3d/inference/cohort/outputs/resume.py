"""Which cases earlier runs have finished in the output folder, and which are to be predicted again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.outputs.deliverables import files_of_mask
from dinomed3d.inference.cohort.outputs.describe import describe_inputs
from dinomed3d.inference.cohort.outputs.foreign_files import foreign_file
from dinomed3d.inference.cohort.outputs.mask_digest import is_edited
from dinomed3d.inference.cohort.outputs.record import Record, read_record
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.io.image import Grid, check_mask
from dinomed3d.inference.models.model import Model
from dinomed3d.runtime.errors import UserError


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
    """Kept cases for whose masks something was made that was missing, or was of the mask before it was corrected."""
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
        edited = record["status"] == "done" and is_edited(record, out)
        if record["status"] == "begun":
            reason: str | None = "it was interrupted"
        elif record["status"] == "damaged":
            reason = "its record is incomplete"
        else:
            reason = why_outdated(record, out, case, model.channels, edited=edited)
        if reason is not None:
            work.redone[case.id] = reason
            work.todo.append(case)
            continue
        work.kept.append(case.id)
        if edited:
            work.edited.append(case.id)
    return work


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


def why_outdated(
    record: Mapping[str, Any], out: Path, case: Case, channels: Sequence[str], *, edited: bool
) -> str | None:
    """Why a finished case must be predicted again; None if its mask is valid, and what only predicting makes is there.

    The record has the status "done"; the case is as found now. Of a mask that was corrected by hand (`edited`) nothing
    but the mask counts: predicting would replace it.
    """
    mask = out / record["mask"]["file"]
    kept = f"; its corrected mask is kept as {case.id}.edited1 or the next number" if edited else ""
    if record["inputs"] != describe_inputs(case, channels):
        return f"the input files have changed{kept}"
    if not mask.is_file():
        return "its mask is gone"
    try:
        problem = check_mask(mask, Grid.from_json(record["grid"]))
    except (KeyError, TypeError, ValueError, OSError):
        return "its record is damaged"
    if problem is not None:
        return f"its mask: {problem}{kept}"
    predicted = (
        [] if edited else [n for n in record["files"] if n not in files_of_mask(record).values()]
    )
    missing = [name for name in predicted if not (out / name).is_file()]
    return f"{missing[0]} is gone" if missing else None
