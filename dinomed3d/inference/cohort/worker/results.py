"""Results of a finished case: mask, preview, measures, flags, and what else is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dinomed3d.inference.cohort.outputs import deliverables
from dinomed3d.inference.cohort.outputs.mask_digest import sha256
from dinomed3d.inference.cohort.outputs.record import Record
from dinomed3d.inference.cohort.outputs.result_files import SEG_ENDING, SLICES_ENDING
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker.case_task import CaseTask
from dinomed3d.inference.io.image import write_mask
from dinomed3d.inference.models.model import Model
from dinomed3d.inference.report.quality import TrainingRange, flags, measure


def write_results(
    task: CaseTask, model: Model, spec: PredictSpec, training: TrainingRange
) -> dict[str, Any]:
    """Write everything but the record.

    Args:
        task: a case with volume and segmentation.
        model: that predicted it.
        spec: options.
        training: ranges of the training set, for flags.

    Returns:
        The record's entries about the results.

    Raises:
        CaseError: a result cannot be written exactly.
    """
    assert task.volume is not None and task.segmentation is not None
    volume, grid, scan = task.volume, task.volume.grid, task.case.scans[0]
    mask = np.ascontiguousarray(task.segmentation.mask)
    certainty = task.segmentation.certainty
    path = Path(spec.out) / f"{task.case.id}{grid.ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(mask, grid, path, labels=model.mask_values)
    digest = sha256(path)
    endings: list[str] = []
    notes: list[str] = []
    flagged: list[str] = []
    made: Record = {}
    if grid.slices:
        made |= deliverables.original_slices(
            mask, grid, digest, task.case.id, Path(spec.out), model
        )
        endings.append(SLICES_ENDING)
    if spec.dicom_seg and scan.ending == ".dcm":
        written, flagged = deliverables.segmentation(mask, grid, task.case, Path(spec.out), model)
        if written is not None:
            notes += written
            endings.append(SEG_ENDING)
    if spec.save_probabilities is not None:
        endings += [".npz", ".pkl"] if spec.save_probabilities == "npz" else [".b2nd"]
    labels = measure(mask, model.mask_values, voxel_ml=grid.voxel_ml)
    flagged += flags(
        labels,
        training,
        channels=volume.channels,
        mask=mask,
        spacing_mm=task.spacing or grid.spacing_mm,
        certainty=certainty,
        axes=(0, 1, 2) if task.reorientation is None else task.reorientation.axes,
    )
    preview = deliverables.preview(mask, volume, task.case.id, Path(spec.out))
    if spec.statistics:
        made |= deliverables.statistics(mask, volume, digest, model)
    if spec.dicom_rtstruct and scan.ending == ".dcm":
        entries, more = deliverables.structure_set(
            mask, grid, digest, task.case, Path(spec.out), model
        )
        made |= entries
        flagged += more
    if spec.split_labels:
        entries, more = deliverables.split(mask, grid, digest, task.case.id, Path(spec.out), model)
        made |= entries
        flagged += more
    # nnU-Net looks for the spacing of a TIFF stack in a file of the record's name
    spacing = {"spacing": list(grid.spacing_mm)} if grid.ending in (".tif", ".tiff") else {}
    return {
        **spacing,
        "grid": grid.to_json(),
        "orientation": grid.orientation,
        "mask": {"file": f"{task.case.id}{grid.ending}", "sha256": digest},
        "files": [*(f"{task.case.id}{ending}" for ending in endings), preview],
        "labels": labels,
        "certainty": certainty,
        "flags": flagged,
        "result_notes": notes,
        **made,
    }


def describe_localizing(task: CaseTask, spec: PredictSpec, record: Record) -> Record:
    """The entries of a record about the region, with what people must know of it in the report.

    Args:
        task: a case with a mask.
        spec: options.
        record: its entries so far.
    """
    region, margin_mm = task.region, spec.localizer_margin_mm
    flags, notes = list(record["flags"]), list(record["result_notes"])
    if region is None:
        flags.append("localizer: found nothing, so the whole volume was predicted")
        return {"flags": flags, "region": {"box": None, "margin_mm": margin_mm, "share": 1.0}}
    spans = [[span.start, span.stop] for span in region.box]
    notes.append(
        f"localizer: predicted in voxels {', '.join(f'{a} to {b - 1}' for a, b in spans)} (z, y, x as the model "
        f"sees them), {region.share:.0%} of the volume, margin {margin_mm:g} mm; background outside"
    )
    if task.is_cut:
        flags.append(
            "localizer: the mask touches the border of its region and may be cut off; use a larger "
            "--localizer-margin"
        )
    share = round(region.share, 4)
    return {
        "flags": flags,
        "result_notes": notes,
        "region": {"box": spans, "margin_mm": margin_mm, "share": share},
    }
