"""Makes what finished masks of earlier runs lack, or what was made before a mask was corrected by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from dinomed3d.inference.case import Case, CaseError
from dinomed3d.inference.cohort.outputs import deliverables
from dinomed3d.inference.cohort.outputs.mask_digest import sha256
from dinomed3d.inference.cohort.outputs.record import Record, read_record, write_record
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.dicom.segments import LEFT_OUT
from dinomed3d.inference.io.grid import Grid
from dinomed3d.inference.io.image import read_case, read_mask
from dinomed3d.inference.models.model import Model


def complete_kept(
    cases: Iterable[Case], edited: Iterable[str], out: Path, model: Model, spec: PredictSpec
) -> list[str]:
    """Make what masks of earlier runs lack, or what was made before a mask was corrected by hand.

    Nothing is predicted again. What cannot be made is a flag of the case.

    Args:
        cases: finished by earlier runs.
        edited: those whose masks were corrected by hand.
        out: the output folder.
        model: that predicted them.
        spec: options.

    Returns:
        The cases for which something was made.

    Raises:
        OSError: the output folder cannot be written to.
    """
    completed: list[str] = []
    corrected = set(edited)
    asked = spec.statistics or spec.split_labels or spec.dicom_rtstruct or spec.dicom_seg
    for case in cases if asked else ():
        record = read_record(out, case.id)
        if record is None:
            continue
        path = out / record["mask"]["file"]
        is_corrected = case.id in corrected
        digest = sha256(path) if is_corrected else record["mask"]["sha256"]
        wanted = _lacks(record, digest, case, out, spec)
        if not wanted:
            continue
        when = datetime.fromtimestamp(path.stat().st_mtime) if is_corrected else None
        made, flags = _complete(wanted, record, case, digest, out, model, corrected=when)
        tried = tuple(deliverables.WHY_MISSING[entry] for entry in wanted)
        kept = [flag for flag in record["flags"] if not flag.startswith(tried)]
        write_record(out, record | made | {"flags": [*kept, *flags]})
        is_made = any(isinstance(e, dict) and e["mask_sha256"] for e in made.values())
        completed += [case.id] if is_made else []
    return completed


def _lacks(
    record: Mapping[str, Any], digest: str, case: Case, out: Path, spec: PredictSpec
) -> list[str]:
    """The entries that are to be made for this mask."""
    wanted = []
    if spec.statistics and (record.get("statistics") or {}).get("mask_sha256") != digest:
        wanted.append("statistics")
    if spec.split_labels:
        made = record.get("split") or {}
        files = made.get("files") or {}
        if made.get("mask_sha256") != digest or not all(
            (out / f).is_file() for f in files.values()
        ):
            wanted.append("split")
    if spec.dicom_rtstruct and case.scans[0].ending == ".dcm":
        file = (record.get("rtstruct") or {}).get("file")
        same = (record.get("rtstruct") or {}).get("mask_sha256") == digest
        if not same or not file or not (out / file).is_file():
            wanted.append("rtstruct")
    if spec.dicom_seg and case.scans[0].ending == ".dcm":
        # the prediction's own has no entry: whether it could be made is in the files and flags
        made_of = (record.get("seg") or {}).get("mask_sha256", record["mask"]["sha256"])
        if made_of != digest:
            wanted.append("seg")
    return wanted


def _complete(
    wanted: list[str],
    record: Record,
    case: Case,
    digest: str,
    out: Path,
    model: Model,
    *,
    corrected: datetime | None,
) -> tuple[Record, list[str]]:
    """Make entries for the mask of a kept case; gives them, of an outdated file without a mask, and flags."""
    made: Record = {}
    flags: list[str] = []
    try:
        grid = Grid.from_json(record["grid"])
        mask = np.ascontiguousarray(read_mask(out / record["mask"]["file"], grid))
    except CaseError as error:
        if "seg" in wanted:
            made = _segmentation_entries(
                record, None, digest, f"{case.id}{deliverables.SEG_ENDING}"
            )
        return made, [f"{deliverables.WHY_MISSING[entry]}{error}" for entry in wanted]
    if "statistics" in wanted:
        try:
            made |= deliverables.statistics(mask, read_case(case, model.channels), digest, model)
        except CaseError as error:
            flags.append(f"{deliverables.WHY_MISSING['statistics']}{error}")
    if "split" in wanted:
        ours = ((record.get("split") or {}).get("files") or {}).values()
        entries, more = deliverables.split(mask, grid, digest, case.id, out, model, set(ours))
        made |= entries
        flags += more
    if "rtstruct" in wanted:
        entries, more = deliverables.structure_set(
            mask, grid, digest, case, out, model, corrected=corrected
        )
        made |= entries
        flags += more
    if "seg" in wanted:
        notes, more = deliverables.segmentation(mask, grid, case, out, model, corrected=corrected)
        made |= _segmentation_entries(record, notes, digest, f"{case.id}{deliverables.SEG_ENDING}")
        flags += more
    return made, flags


def _segmentation_entries(
    record: Record, notes: list[str] | None, digest: str, file: str
) -> Record:
    """What a record says of a DICOM segmentation that was made again, or could not be."""
    if notes is None:
        return {
            "seg": {"mask_sha256": None, "file": file}
        }  # if there is one, it is of another mask
    others = [n for n in record.get("result_notes") or () if not n.startswith(LEFT_OUT)]
    return {
        "seg": {"mask_sha256": digest, "file": file},
        "files": [*(name for name in record["files"] if name != file), file],
        "result_notes": [*others, *notes],
    }
