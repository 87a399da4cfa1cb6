"""A DICOM series as a volume; its mask is a NIfTI file on the same grid."""

from __future__ import annotations

import numpy as np

from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom.references import series_path
from dinomed3d.inference.dicom.stack import Stack
from dinomed3d.inference.dicom.volume import read_series, series_grid
from dinomed3d.inference.io import nifti_header
from dinomed3d.inference.io.grid import (
    Grid,
    Volume,
    array_spacing,
    check_spacing,
    checked_affine,
)
from dinomed3d.inference.io.voxels import checked_volume


def read_grid(scan: Scan) -> Grid:
    """The grid of a mask for this series; reads headers alone.

    Raises:
        CaseError: As `series_grid`, or the series cannot place a mask.
    """
    return _grid(scan, series_grid(scan))[0]


def read(scan: Scan, *, channels: int = 1) -> Volume:
    """All voxels of a series, and its grid.

    Raises:
        CaseError: As `read_series`, or more than one channel is needed.
    """
    if channels > 1:
        raise CaseError(f"{series_path(scan)}: one DICOM series cannot hold {channels} channels")
    voxels, stack = read_series(scan)
    grid, notes = _grid(scan, stack)
    channel, more = checked_volume(voxels, series_path(scan))
    return Volume(channels=[channel], grid=grid, notes=notes + more)


def _grid(scan: Scan, stack: Stack) -> tuple[Grid, list[str]]:
    spacing_xyz, shape_xyz = stack.spacing_zyx[::-1], stack.shape_zyx[::-1]
    check_spacing(spacing_xyz, series_path(scan))
    rows, notes = checked_affine(stack.affine, spacing_xyz, series_path(scan))
    grid = Grid(
        shape_zyx=stack.shape_zyx,
        spacing_mm=stack.spacing_zyx,
        affine=rows,
        stored_shape=shape_xyz,
        ending=".nii.gz",
        header=nifti_header.from_affine(stack.affine, spacing_xyz, shape_xyz),
        slice_places=stack.places,
    )
    return grid, [*stack.notes, *notes]


def original_slices(grid: Grid) -> Grid:
    """The grid of the original slices of a scan with two slice increments, as ITK reads such a series.

    No image format describes uneven slices. ITK, and what is built on it, opens the series as slices of
    their mean distance from the first to the last, and so is this, slice by slice. Positions between
    them are not those in the patient.

    Args:
        grid: Of even slices, with `slice_places`.
    """
    count = len(grid.slice_places)
    affine = grid.matrix
    affine[:3, 2] *= grid.slice_places[-1] / (count - 1)
    _, y, x = grid.shape_zyx
    spacing_xyz = (
        grid.spacing_mm[2],
        grid.spacing_mm[1],
        float(np.linalg.norm(affine[:3, 2])),
    )
    return Grid(
        shape_zyx=(count, y, x),
        spacing_mm=array_spacing(spacing_xyz),
        affine=tuple(tuple(float(value) for value in row) for row in affine),
        stored_shape=(x, y, count),
        ending=".nii.gz",
        header=nifti_header.from_affine(affine, spacing_xyz, (x, y, count)),
    )
