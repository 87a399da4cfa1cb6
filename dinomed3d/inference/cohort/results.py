"""Results of a finished case: mask, preview, measures, flags, and DICOM-SEG if requested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dinomed3d import __version__
from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.record import sha256
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.io.image import Volume, write_mask
from dinomed3d.inference.io.orientation import Reorientation
from dinomed3d.inference.models.model import Model
from dinomed3d.inference.nnunet.segment import Segmentation
from dinomed3d.inference.report.preview import draw_preview
from dinomed3d.inference.report.quality import TrainingRange, flags, measure
from dinomed3d.runtime.atomic_files import WriteError, atomic_write


def write_results(
    case: Case,
    volume: Volume,
    segmentation: Segmentation,
    model: Model,
    spec: PredictSpec,
    training: TrainingRange,
    reorientation: Reorientation | None,
) -> dict[str, Any]:
    """Write everything but the record.

    Args:
        case: that was predicted.
        volume: the scan, as stored.
        segmentation: its mask on the stored grid.
        model: that predicted it.
        spec: options.
        training: ranges of the training set, for flags.
        reorientation: how the volume was reoriented for the model, if it was.

    Returns:
        The record's entries about the results.

    Raises:
        CaseError: a result cannot be written exactly.
    """
    out, grid = Path(spec.out), volume.grid
    mask = np.ascontiguousarray(segmentation.mask)
    path = out / f"{case.id}{grid.ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(mask, grid, path)
    files: list[str] = []
    notes: list[str] = []
    flagged: list[str] = []
    if spec.dicom_seg and case.scans[0].ending == ".dcm":
        from dinomed3d.inference.dicom.dicom_seg import write_segmentation

        seg = out / f"{case.id}.seg.dcm"
        try:
            notes += write_segmentation(
                mask,
                case.scans[0],
                seg,
                labels=model.mask_values,
                algorithm=f"{model.trainer} {model.configuration}"[:64],
                version=f"dinomed3d {__version__}, model {model.hash[:12]}",
            )
            files.append(seg.relative_to(out).as_posix())
        except WriteError:
            raise
        except ValueError as error:  # the mask itself is valid and stays
            flagged.append(f"no DICOM segmentation: {error}")
    if spec.save_probabilities:
        files.append(f"{case.id}.b2nd")
    labels = measure(mask, model.mask_values, voxel_ml=grid.voxel_ml)
    flagged += flags(
        labels,
        training,
        channels=volume.channels,
        mask=mask,
        spacing_mm=grid.spacing_mm,
        certainty=segmentation.certainty,
        axes=(0, 1, 2) if reorientation is None else reorientation.axes,
    )
    preview = out / f"{case.id}.png"
    image = volume.channels[0]
    atomic_write(preview, draw_preview(image, mask, spacing_mm=grid.spacing_mm, affine=grid.affine))
    return {
        "grid": grid.to_json(),
        "orientation": grid.orientation,
        "mask": {"file": path.relative_to(out).as_posix(), "sha256": sha256(path)},
        "files": [*files, preview.relative_to(out).as_posix()],
        "labels": labels,
        "certainty": segmentation.certainty,
        "flags": flagged,
        "result_notes": notes,
    }
