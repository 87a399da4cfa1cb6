"""What masks of earlier runs lack, or what was made before they were corrected by hand, is made without predicting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import Case, CaseError
from dinomed3d.inference.cohort.outputs import deliverables
from dinomed3d.inference.cohort.outputs.deliverables import WHY_MISSING
from dinomed3d.inference.cohort.outputs.mask_digest import sha256
from dinomed3d.inference.cohort.outputs.output_errors import ends_run
from dinomed3d.inference.cohort.outputs.record import Record, read_record, write_record
from dinomed3d.inference.cohort.outputs.remove_results import keep_edited_slices
from dinomed3d.inference.cohort.outputs.result_files import SEG_ENDING, SLICES_ENDING
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.dicom.segments import LEFT_OUT
from dinomed3d.inference.io.grid import Grid, Volume
from dinomed3d.inference.io.image import read_case, read_mask
from dinomed3d.inference.models.model import Model
from dinomed3d.inference.report.quality import measure
from dinomed3d.inference.report.run_flags import BY_PREDICTION

Made = tuple[Record, list[str]]
"""Entries of the record, and flags."""


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
        OSError: the output folder cannot be written to any more.
    """
    completed: list[str] = []
    corrected = set(edited)
    for case in cases:
        record = read_record(out, case.id)
        if record is None:
            continue
        path = out / record["mask"]["file"]
        is_corrected = case.id in corrected
        digest = sha256(path) if is_corrected else record["mask"]["sha256"]
        wanted = _lacks(record, digest, case, out, spec)
        answered = tuple(
            text for e, text in WHY_MISSING.items() if e in wanted or _is_of(record, e, digest)
        )
        flags = [flag for flag in record["flags"] if not flag.startswith(answered)]
        record, gone = _without_gone(record, out) if is_corrected else (record, [])
        flags += gone
        if not wanted and flags == record["flags"]:
            continue
        when = datetime.fromtimestamp(path.stat().st_mtime) if is_corrected else None
        kept = _Kept(case=case, record=record, digest=digest, out=out, model=model, corrected=when)
        made, more = kept.make(wanted)
        write_record(out, record | made | {"flags": [*flags, *more]})
        completed += [case.id] if made else []
    return completed


def _without_gone(record: Record, out: Path) -> tuple[Record, list[str]]:
    """The record of a corrected mask without files that only a prediction makes and that are gone; and flags."""
    again = deliverables.files_of_mask(record).values()
    gone = [n for n in record["files"] if n not in again and not (out / n).is_file()]
    files = [name for name in record["files"] if name not in gone]
    return record | {"files": files}, [
        f"{n} is gone; only predicting again would make it" for n in gone
    ]


def _is_of(record: Record, entry: str, digest: str) -> bool:
    """Whether what was made is of this mask, so that flags on another one do not concern it."""
    made = record.get(entry)
    if made is not None:
        return bool(made.get("mask_sha256") == digest)
    by_prediction = any(name.endswith(BY_PREDICTION.get(entry, ())) for name in record["files"])
    return by_prediction and bool(record["mask"]["sha256"] == digest)


def _lacks(
    record: Mapping[str, Any], digest: str, case: Case, out: Path, spec: PredictSpec
) -> list[str]:
    """The entries that are to be made for this mask."""
    wanted = []
    # what every prediction makes has no entry until it is made anew: a DICOM segmentation that could not
    # be made is in the flags alone
    always = ["preview"] + (["slices"] if record["grid"].get("slice_places") else [])
    is_series = case.scans[0].ending == ".dcm"
    files = deliverables.files_of_mask(record)
    for entry in always + (["seg"] if spec.dicom_seg and is_series else []):
        made_of = (record.get(entry) or {}).get("mask_sha256", record["mask"]["sha256"])
        if made_of != digest or (entry in files and not (out / files[entry]).is_file()):
            wanted.append(entry)
    if spec.statistics and (record.get("statistics") or {}).get("mask_sha256") != digest:
        wanted.append("statistics")
    if spec.split_labels:
        made = record.get("split") or {}
        files = made.get("files") or {}
        if made.get("mask_sha256") != digest or not all(
            (out / f).is_file() for f in files.values()
        ):
            wanted.append("split")
    if spec.dicom_rtstruct and is_series:
        file = (record.get("rtstruct") or {}).get("file")
        same = (record.get("rtstruct") or {}).get("mask_sha256") == digest
        if not same or not file or not (out / file).is_file():
            wanted.append("rtstruct")
    return wanted


@dataclass(kw_only=True)
class _Kept:
    """A finished case for whose mask something is made."""

    case: Case
    """The case."""
    record: Record
    """Its record, as it was."""
    digest: str
    """sha256 of the mask's file as it is now."""
    out: Path
    """The output folder."""
    model: Model
    """That predicted it."""
    corrected: datetime | None
    """When the mask was corrected by hand, in local time."""

    @cached_property
    def grid(self) -> Grid:
        """The grid of the mask."""
        return Grid.from_json(self.record["grid"])

    @cached_property
    def mask(self) -> NDArray[Any]:
        """The mask as it is now."""
        return np.ascontiguousarray(read_mask(self.out / self.record["mask"]["file"], self.grid))

    @cached_property
    def volume(self) -> Volume:
        """The scan."""
        return read_case(self.case, self.model.channels)

    def make(self, wanted: list[str]) -> Made:
        """Make these entries; what cannot be made keeps what the record says of an earlier mask."""
        makers = {
            "preview": self._preview,
            "slices": self._slices,
            "statistics": self._statistics,
            "split": self._split,
            "rtstruct": self._structure_set,
            "seg": self._segmentation,
        }
        made: Record = {}
        flags: list[str] = []
        for entry in wanted:
            try:
                entries, more = makers[entry]()
            except CaseError as error:
                entries, more = {}, [f"{WHY_MISSING[entry]}{error}"]
            except OSError as error:  # one file, such as a picture that another program has open
                if ends_run(error):
                    raise
                entries, more = {}, [f"{WHY_MISSING[entry]}{error}"]
            made |= entries
            flags += more
        return made, flags

    def _preview(self) -> Made:
        labels = measure(self.mask, self.model.mask_values, voxel_ml=self.grid.voxel_ml)
        deliverables.preview(self.mask, self.volume, self.case.id, self.out)
        return {"preview": {"mask_sha256": self.digest}, "labels": labels}, []

    def _slices(self) -> Made:
        mask, name = self.mask, f"{self.case.id}{SLICES_ENDING}"
        kept = keep_edited_slices(self.record, self.out)
        made = deliverables.original_slices(
            mask, self.grid, self.digest, self.case.id, self.out, self.model
        )
        flags = [] if kept is None else [f"{name} was made anew; the earlier one is kept as {kept}"]
        return made, flags

    def _statistics(self) -> Made:
        return deliverables.statistics(self.mask, self.volume, self.digest, self.model), []

    def _split(self) -> Made:
        ours = ((self.record.get("split") or {}).get("files") or {}).values()
        return deliverables.split(
            self.mask, self.grid, self.digest, self.case.id, self.out, self.model, set(ours)
        )

    def _structure_set(self) -> Made:
        return deliverables.structure_set(
            self.mask,
            self.grid,
            self.digest,
            self.case,
            self.out,
            self.model,
            corrected=self.corrected,
        )

    def _segmentation(self) -> Made:
        notes, flags = deliverables.segmentation(
            self.mask, self.grid, self.case, self.out, self.model, corrected=self.corrected
        )
        if notes is None:
            return {}, flags
        file = f"{self.case.id}{SEG_ENDING}"
        others = [n for n in self.record.get("result_notes") or () if not n.startswith(LEFT_OUT)]
        entries = {
            "seg": {"mask_sha256": self.digest, "file": file},
            "files": [*(name for name in self.record["files"] if name != file), file],
            "result_notes": [*others, *notes],
        }
        return entries, flags
