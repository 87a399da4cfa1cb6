"""A DICOM series as a volume; its mask is a NIfTI file on the same grid."""

from __future__ import annotations

from pathlib import Path

from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom.stack import Stack
from dinomed3d.inference.dicom.volume import read_series, series_grid
from dinomed3d.inference.io import nifti_header
from dinomed3d.inference.io.grid import Grid, Volume, check_spacing, checked_affine
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
        raise CaseError(f"{_name(scan)}: one DICOM series cannot hold {channels} channels")
    voxels, stack = read_series(scan)
    grid, notes = _grid(scan, stack)
    channel, more = checked_volume(voxels, _name(scan))
    return Volume(channels=[channel], grid=grid, notes=notes + more)


def _grid(scan: Scan, stack: Stack) -> tuple[Grid, list[str]]:
    spacing_xyz, shape_xyz = stack.spacing_zyx[::-1], stack.shape_zyx[::-1]
    check_spacing(spacing_xyz, _name(scan))
    rows, notes = checked_affine(stack.affine, spacing_xyz, _name(scan))
    grid = Grid(
        shape_zyx=stack.shape_zyx,
        spacing_mm=stack.spacing_zyx,
        affine=rows,
        stored_shape=shape_xyz,
        ending=".nii.gz",
        header=nifti_header.from_affine(stack.affine, spacing_xyz, shape_xyz),
    )
    return grid, [*stack.notes, *notes]


def _name(scan: Scan) -> str:
    return scan.archive or str(Path(scan.files[0]).parent)
