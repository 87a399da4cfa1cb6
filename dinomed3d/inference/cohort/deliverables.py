"""What is made of a finished mask on request, also long after the prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import Case, CaseError
from dinomed3d.inference.cohort.record import Record, read_record, sha256, write_record
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.io.grid import Grid, Volume
from dinomed3d.inference.io.image import read_case, read_mask
from dinomed3d.inference.models.model import Model
from dinomed3d.inference.report.statistics import label_statistics


def make(
    mask: NDArray[Any], volume: Volume, mask_sha256: str, model: Model, spec: PredictSpec
) -> dict[str, Any]:
    """Make what the options ask for.

    Args:
        mask: on the grid of the volume.
        volume: the scan.
        mask_sha256: of the mask's file; what is made says which mask it is of.
        model: that predicted it.
        spec: options.

    Returns:
        Entries of the record.
    """
    if not spec.statistics:
        return {}
    found = label_statistics(
        mask,
        volume.channels,
        model.mask_values,
        names=model.channels,
        voxel_ml=volume.grid.voxel_ml,
    )
    return {"statistics": {"mask_sha256": mask_sha256, "labels": found}}


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
    for case in cases if spec.statistics else ():
        record = read_record(out, case.id)
        if record is None:
            continue
        path = out / record["mask"]["file"]
        digest = sha256(path) if case.id in corrected else record["mask"]["sha256"]
        if not _lacks(record, digest, spec):
            continue
        try:
            mask = read_mask(path, Grid.from_json(record["grid"]))
            volume = read_case(case, model.channels)
            if volume.channels[0].shape != mask.shape:
                raise CaseError("the mask has another shape than the scan")
            made = make(np.ascontiguousarray(mask), volume, digest, model, spec)
        except CaseError as error:
            made = {"statistics": None}
            flag = f"no statistics: {error}"
            if flag not in record["flags"]:
                made["flags"] = [*record["flags"], flag]
        else:
            completed.append(case.id)
        write_record(out, record | made)
    return completed


def _lacks(record: Mapping[str, Any], digest: str, spec: PredictSpec) -> bool:
    """Whether something is to be made for this mask."""
    made: Record = record.get("statistics") or {}
    return spec.statistics and made.get("mask_sha256") != digest
