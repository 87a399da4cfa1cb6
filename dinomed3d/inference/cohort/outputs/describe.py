"""Entries of a record that say what was predicted: the input files, how they are read, the model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from dinomed3d.hub.local_model import name_in_cache
from dinomed3d.inference.case import Case, RejectedInput
from dinomed3d.inference.cohort.outputs.record import Record
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.models.model import Model


def describe_inputs(case: Case | RejectedInput, channels: Sequence[str]) -> list[dict[str, Any]]:
    """List the files of a case with their present size and time of change."""
    if isinstance(case, RejectedInput):
        return [
            {"channel": "", "files": list(case.files), "archive": None, "series": ""}
            | _state(case.files)
        ]
    together = [", ".join(channels)] * len(case.scans)
    names = list(channels) if len(case.scans) == len(channels) else together
    described = []
    for name, scan in zip(names, case.scans, strict=True):
        files = [scan.archive] if scan.archive is not None else list(scan.files)
        described.append(
            {
                "channel": name,
                "files": list(scan.files),
                "archive": scan.archive,
                "series": scan.series,
                **_state(files),
            }
        )
    return described


def _state(files: Sequence[str]) -> dict[str, int]:
    """The present size of files together, and when the last of them changed."""
    states = [os.stat(file) for file in files if os.path.exists(file)]
    return {
        "bytes": sum(state.st_size for state in states),
        "modified_ns": max((state.st_mtime_ns for state in states), default=0),
    }


def describe_reading(case: Case, channels: Sequence[str]) -> dict[str, Any]:
    """What is needed, in addition to the list of files, to read the scans of a case again in the same way."""
    names = ("ending", "uid", "frames", "reader")
    scans = [{name: getattr(scan, name) for name in names} for scan in case.scans]
    return {"channels": list(channels), "scans": scans}


def describe_model(model: Model) -> dict[str, Any]:
    """The entries of a record that identify the model; `hub` is its name there, if it is from the hub."""
    on_hub = name_in_cache(model.source)
    return {
        **({} if on_hub is None else {"hub": on_hub}),
        "hash": model.hash,
        "trainer": model.trainer,
        "configuration": model.configuration,
        "folds": list(model.folds),
    }


def failed_record(
    case: Case | RejectedInput, reason: str, model: Model, spec: PredictSpec
) -> Record:
    """The record of a case that never reached a worker, or whose worker died."""
    return {
        "case": case.id,
        "status": "failed",
        "reason": reason,
        "inputs": describe_inputs(case, model.channels),
        "model": describe_model(model),
        "settings": spec.settings,
        "seconds": {},
    }
