"""What is made of a finished mask on request, also long after the prediction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import Case, CaseError
from dinomed3d.inference.cohort.record import Record, read_record, sha256, write_record
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.split_labels import split_files, write_split
from dinomed3d.inference.io.grid import Grid, Volume
from dinomed3d.inference.io.image import read_case, read_mask
from dinomed3d.inference.models.model import Model
from dinomed3d.inference.report.statistics import label_statistics

_FLAGS = ("no statistics: ", "no label files: ")


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
        return {}, [f"{_FLAGS[1]}{error}"]
    return {"split": {"mask_sha256": digest, "files": files}}, []


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
    for case in cases if spec.statistics or spec.split_labels else ():
        record = read_record(out, case.id)
        if record is None:
            continue
        path = out / record["mask"]["file"]
        digest = sha256(path) if case.id in corrected else record["mask"]["sha256"]
        wanted = _lacks(record, digest, out, spec)
        if not wanted:
            continue
        made, flags = _complete(wanted, record, case, digest, out, model)
        kept = [flag for flag in record["flags"] if not flag.startswith(_FLAGS)]
        write_record(out, record | made | {"flags": [*kept, *flags]})
        completed += [case.id] if made else []
    return completed


def _lacks(record: Mapping[str, Any], digest: str, out: Path, spec: PredictSpec) -> list[str]:
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
    return wanted


def _complete(
    wanted: list[str], record: Record, case: Case, digest: str, out: Path, model: Model
) -> tuple[Record, list[str]]:
    """Make entries for the mask of a kept case; gives them and flags."""
    made: Record = {}
    flags: list[str] = []
    try:
        grid = Grid.from_json(record["grid"])
        mask = np.ascontiguousarray(read_mask(out / record["mask"]["file"], grid))
    except CaseError as error:
        return {}, [f"{start}{error}" for start in _FLAGS]
    if "statistics" in wanted:
        try:
            made |= statistics(mask, read_case(case, model.channels), digest, model)
        except CaseError as error:
            flags.append(f"{_FLAGS[0]}{error}")
    if "split" in wanted:
        ours = ((record.get("split") or {}).get("files") or {}).values()
        entries, more = split(mask, grid, digest, case.id, out, model, set(ours))
        made |= entries
        flags += more
    return made, flags
