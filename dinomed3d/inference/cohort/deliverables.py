"""What is made of a finished mask on request, also long after the prediction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d import __version__
from dinomed3d.inference.case import Case, CaseError
from dinomed3d.inference.cohort.record import Record, read_record, sha256, write_record
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.split_labels import split_files, write_split
from dinomed3d.inference.dicom.derived import MadeBy
from dinomed3d.inference.dicom.segments import LEFT_OUT
from dinomed3d.inference.io.grid import Grid, Volume
from dinomed3d.inference.io.image import read_case, read_mask
from dinomed3d.inference.models.model import Model
from dinomed3d.inference.report.statistics import label_statistics
from dinomed3d.runtime.atomic_files import WriteError

_OF = {
    "statistics": "no statistics: ",
    "split": "no label files: ",
    "rtstruct": "no RT structure set: ",
    "seg": "no DICOM segmentation: ",
}
"""Entry of the record -> beginning of the flag that says why it is missing."""
SEG_ENDING = ".seg.dcm"
"""Ending of a DICOM segmentation, which is one of the record's `files`."""


def statistics(mask: NDArray[Any], volume: Volume, digest: str, model: Model) -> Record:
    """Measure volume and intensities of each label.

    Args:
        mask: on the grid of the volume.
        volume: the scan.
        digest: sha256 of the mask's file; what is made says which mask it is of.
        model: that predicted it.

    Returns:
        Entries of the record.
    """
    found = label_statistics(
        mask,
        volume.channels,
        model.mask_values,
        names=model.channels,
        voxel_ml=volume.grid.voxel_ml,
    )
    return {"statistics": {"mask_sha256": digest, "labels": found}}


def split(
    mask: NDArray[Any],
    grid: Grid,
    digest: str,
    case: str,
    out: Path,
    model: Model,
    ours: Collection[str] = (),
) -> tuple[Record, list[str]]:
    """Write a file for each label, as `write_split`; gives entries and flags of the record.

    Raises:
        OSError: they cannot be written.
    """
    try:
        files = write_split(mask, grid, case, out, model, ours)
    except CaseError as error:  # the mask itself is valid and stays
        return {}, [f"{_OF['split']}{error}"]
    return {"split": {"mask_sha256": digest, "files": files}}, []


def structure_set(
    mask: NDArray[Any],
    grid: Grid,
    digest: str,
    case: Case,
    out: Path,
    model: Model,
    *,
    corrected: datetime | None = None,
) -> tuple[Record, list[str]]:
    """Write the mask of a DICOM series as an RT structure set; gives entries and flags of the record.

    Args:
        mask: on `grid`.
        grid: of the mask, whose slices may be even ones of a series of two increments.
        digest: sha256 of the mask's file.
        case: whose first scan is the series.
        out: the output folder.
        model: that predicted it.
        corrected: when it was corrected by hand, in local time.

    Raises:
        WriteError: it cannot be written.
    """
    from dinomed3d.inference.dicom.structure_set import write_structure_set

    name = f"{case.id}.rtstruct.dcm"
    try:
        left_out = write_structure_set(
            mask[grid.slices] if grid.slices else mask,
            case.scans[0],
            out / name,
            labels=model.mask_values,
            made_by=_made_by(model, corrected),
        )
    except WriteError:
        raise
    except ValueError as error:  # the mask itself is valid and stays
        return {}, [f"{_OF['rtstruct']}{error}"]
    return {"rtstruct": {"mask_sha256": digest, "file": name, "left_out": left_out}}, []


def segmentation(
    mask: NDArray[Any],
    grid: Grid,
    case: Case,
    out: Path,
    model: Model,
    *,
    corrected: datetime | None = None,
) -> tuple[list[str] | None, list[str]]:
    """Write the mask of a DICOM series as a DICOM segmentation.

    Args:
        mask: on `grid`.
        grid: of the mask, whose slices may be even ones of a series of two increments.
        case: whose first scan is the series.
        out: the output folder.
        model: that predicted it.
        corrected: when it was corrected by hand, in local time.

    Returns:
        Notes of the record, None where nothing was written; and flags that say why.

    Raises:
        WriteError: it cannot be written.
    """
    from dinomed3d.inference.dicom.dicom_seg import write_segmentation

    try:
        notes = write_segmentation(
            mask[grid.slices] if grid.slices else mask,
            case.scans[0],
            out / f"{case.id}{SEG_ENDING}",
            labels=model.mask_values,
            made_by=_made_by(model, corrected),
        )
    except WriteError:
        raise
    except ValueError as error:  # the mask itself is valid and stays
        return None, [f"{_OF['seg']}{error}"]
    return notes, []


def _made_by(model: Model, corrected: datetime | None) -> MadeBy:
    """What DICOM objects say about their origin."""
    return MadeBy(
        algorithm=f"{model.trainer} {model.configuration}"[:64],
        version=f"dinomed3d {__version__}, model {model.hash[:12]}",
        corrected=corrected,
    )


def planned(case: str, ending: str, model: Model, spec: PredictSpec) -> Record:
    """Entries of the record while files are written, so that an interrupted run's are known as ours."""
    if not spec.split_labels:
        return {}
    return {"split": {"mask_sha256": None, "files": split_files(case, model.mask_values, ending)}}


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
        tried = tuple(_OF[entry] for entry in wanted)
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
            made = _segmentation_entries(record, None, digest, f"{case.id}{SEG_ENDING}")
        return made, [f"{_OF[entry]}{error}" for entry in wanted]
    if "statistics" in wanted:
        try:
            made |= statistics(mask, read_case(case, model.channels), digest, model)
        except CaseError as error:
            flags.append(f"{_OF['statistics']}{error}")
    if "split" in wanted:
        ours = ((record.get("split") or {}).get("files") or {}).values()
        entries, more = split(mask, grid, digest, case.id, out, model, set(ours))
        made |= entries
        flags += more
    if "rtstruct" in wanted:
        entries, more = structure_set(mask, grid, digest, case, out, model, corrected=corrected)
        made |= entries
        flags += more
    if "seg" in wanted:
        notes, more = segmentation(mask, grid, case, out, model, corrected=corrected)
        made |= _segmentation_entries(record, notes, digest, f"{case.id}{SEG_ENDING}")
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
