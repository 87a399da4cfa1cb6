"""What is made of a finished mask, also long after the prediction: preview, statistics, label files, DICOM objects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dinomed3d import __version__
from dinomed3d.inference.case import Case, CaseError
from dinomed3d.inference.cohort.outputs.mask_digest import sha256
from dinomed3d.inference.cohort.outputs.record import Record
from dinomed3d.inference.cohort.outputs.result_files import (
    RTSTRUCT_ENDING,
    SEG_ENDING,
    SLICES_ENDING,
)
from dinomed3d.inference.cohort.outputs.split_labels import split_files, write_split
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.dicom.derived import MadeBy
from dinomed3d.inference.io.grid import Grid, Volume
from dinomed3d.inference.io.image import write_mask
from dinomed3d.inference.io.pictures import PREVIEW_OF_PNG
from dinomed3d.inference.models.model import Model
from dinomed3d.inference.report.preview import draw_preview
from dinomed3d.inference.report.statistics import label_statistics
from dinomed3d.runtime.files.atomic_files import WriteError, atomic_write

WHY_MISSING = {
    "preview": "no preview and volumes of this mask: ",
    "slices": "no mask of the original slices: ",
    "statistics": "no statistics: ",
    "split": "no label files: ",
    "rtstruct": "no RT structure set: ",
    "seg": "no DICOM segmentation: ",
}
"""Entry of the record -> beginning of the flag that says why it is missing."""


def files_of_mask(record: Mapping[str, Any]) -> dict[str, str]:
    """The files of a finished case that can be made of its mask at any time: entry of the record -> name.

    Of these alone that its prediction, or a correction, has made.
    """
    case = record["case"]
    ending = record["mask"]["file"].removeprefix(case)
    names = {
        "preview": preview_name(case, ending),
        "slices": f"{case}{SLICES_ENDING}",
        "seg": f"{case}{SEG_ENDING}",
    }
    return {entry: name for entry, name in names.items() if name in record["files"]}


def preview_name(case: str, ending: str) -> str:
    """The name of the preview of a case whose mask's file has this ending."""
    return f"{case}{PREVIEW_OF_PNG if ending == '.png' else '.png'}"


def preview(mask: NDArray[Any], volume: Volume, case: str, out: Path) -> str:
    """Draw a mask over its scan; gives the name of the file.

    Args:
        mask: on the grid of the volume.
        volume: the scan.
        case: its id.
        out: the output folder.

    Raises:
        OSError: it cannot be written.
    """
    grid = volume.grid
    name = preview_name(case, grid.ending)
    picture = draw_preview(volume.channels[0], mask, spacing_mm=grid.spacing_mm, affine=grid.affine)
    atomic_write(out / name, picture)
    return name


def original_slices(
    mask: NDArray[Any], grid: Grid, digest: str, case: str, out: Path, model: Model
) -> Record:
    """Write the mask of the original slices of a scan with two slice increments; gives entries of the record.

    Raises:
        CaseError: the format cannot store it.
        OSError: it cannot be written.
    """
    from dinomed3d.inference.io.dicom import original_slices as grid_of

    path = out / f"{case}{SLICES_ENDING}"
    write_mask(mask[grid.slices], grid_of(grid), path, labels=model.mask_values)
    entry = {"mask_sha256": digest, "file": f"{case}{SLICES_ENDING}", "sha256": sha256(path)}
    return {"slices": entry}


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
        return {}, [f"{WHY_MISSING['split']}{error}"]
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

    name = f"{case.id}{RTSTRUCT_ENDING}"
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
        return {}, [f"{WHY_MISSING['rtstruct']}{error}"]
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
        return None, [f"{WHY_MISSING['seg']}{error}"]
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
