"""What a run must not replace in its output folder: scans, and files of others that have the names of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dinomed3d.inference.case import CaseList
from dinomed3d.inference.cohort.outputs.result_files import REPORTS, SUMMARY, files_of
from dinomed3d.runtime.errors import UserError


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
        for path in files_of(case.id, out):
            if os.path.realpath(path) in inputs:
                raise UserError(
                    f"-o {out}: {path} is an input that a result would replace; use another folder"
                )
    existing = [out / name for name in REPORTS if (out / name).exists()]
    try:
        ours = not existing or "spec" in json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise UserError(
            f"{existing[0]} exists already and is not from a run of ours; use another folder for -o"
        )


def foreign_file(case: str, out: Path) -> str | None:
    """Why a case without a record of ours cannot be predicted: a file has the name of its results."""
    found = next((path for path in files_of(case, out) if path.exists()), None)
    if found is None:
        return None
    return (
        f"{found} exists already and has no record of a run of ours (or its record is damaged), and is "
        "not replaced; move it away, or use another folder for -o"
    )
