"""Images that a program has in memory: as volumes with a grid, and masks of the same kind on that grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.discovery.find_cases import find_cases
from dinomed3d.inference.io import nifti_header
from dinomed3d.inference.io.grid import (
    Grid,
    Volume,
    array_shape,
    array_spacing,
    check_spacing,
    checked_affine,
    mask_shape,
)
from dinomed3d.inference.io.image import read_case
from dinomed3d.inference.io.voxels import checked_volume
from dinomed3d.inference.patient_axes import LPS_TO_RAS
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.counted import shortly

_ENDING = ".nii.gz"
"""The format whose needs of memory are assumed; nothing is written."""
_WHAT = "a path, a SimpleITK image, a nibabel image, or an array together with `spacing`"

MakeMask = Callable[[NDArray[Any]], Any]
"""From (Z, Y, X) labels to a mask of the kind of the image."""


@dataclass(frozen=True)
class Given:
    """An image as the caller gave it."""

    volume: Volume
    """Its channels and grid."""
    mask: MakeMask
    """Makes the mask that the caller gets back."""


def understand(image: Any, channels: Sequence[str], spacing: Sequence[float] | None) -> Given:
    """Take an image for what it is.

    Args:
        image: a path, a sequence of paths (a file for each channel), a SimpleITK image, a nibabel image, or an
            array (Z, Y, X) or (C, Z, Y, X).
        channels: names of the model's channels.
        spacing: mm (z, y, x); of an array alone.

    Raises:
        CaseError: it is none of these, holds other channels, or cannot be read.
    """
    if isinstance(image, np.ndarray) != (spacing is not None):
        raise CaseError(_why_no_spacing(image))
    if isinstance(image, np.ndarray):
        assert spacing is not None
        return _of_array(image, channels, spacing)
    if isinstance(image, sitk.Image):
        return _of_itk(image, channels)
    if isinstance(image, nib.spatialimages.SpatialImage):
        return _of_nibabel(image, channels)
    paths = [image] if isinstance(image, str | PathLike) else image
    if not isinstance(paths, list | tuple) or not all(
        isinstance(path, str | PathLike) for path in paths
    ):
        raise CaseError(f"predict: 'image' must be {_WHAT}, got {type(image).__name__}")
    return _of_paths([Path(path) for path in paths], channels)


def _why_no_spacing(image: Any) -> str:
    """What is wrong with a spacing that is missing, or that something else than an array came with."""
    if isinstance(image, np.ndarray):
        return "predict: 'spacing' must be given with an array: its voxel size (z, y, x) in mm"
    if isinstance(image, str | PathLike | sitk.Image | nib.spatialimages.SpatialImage):
        return f"predict: 'spacing' must be left out: {type(image).__name__} has a voxel size of its own"
    return f"predict: 'image' must be {_WHAT}, got {type(image).__name__}; make an array with numpy.asarray"


def _of_paths(paths: Sequence[Path], channels: Sequence[str]) -> Given:
    """Read one case: a file, a DICOM folder, a zip of one series, or a file for each channel."""
    if len(paths) not in (1, len(channels)):
        each = f", or {len(channels)} for {', '.join(channels)}" if len(channels) > 1 else ""
        raise CaseError(f"predict: 'image' must be one path{each}, got {len(paths)}")
    for path in paths:
        if not path.exists():
            raise CaseError(f"{path}: no such file or folder")
    names = channels if len(paths) == 1 else ["image"]
    try:
        found = [find_cases(path, channels=names) for path in paths]
    except UserError as error:
        raise CaseError(str(error)) from error
    for path, cases in zip(paths, found, strict=True):
        if cases.rejected:
            raise CaseError(f"{path}: {cases.rejected[0].reason}")
        if len(cases.cases) != 1:
            raise CaseError(
                f"{path}: must be one image, it holds {len(cases.cases)} "
                f"({shortly(cases.ids, most=3)}); give one of them, or use dinomed3d predict"
            )
    scans = tuple(scan for cases in found for scan in cases.cases[0].scans)
    case = found[0].cases[0]
    volume = read_case(type(case)(id=case.id, scans=scans), channels)
    volume.notes[:0] = [note for cases in found for note in cases.cases[0].notes]
    return Given(volume, lambda mask: _itk_mask(mask, volume.grid))


def _of_array(array: NDArray[Any], channels: Sequence[str], spacing: Sequence[float]) -> Given:
    """Take an array's axes as those that the model was trained with."""
    given = array.shape
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or len(array) != len(channels):
        bare = "(Z, Y, X) or " if len(channels) == 1 else ""
        raise CaseError(
            f"predict: 'image' must be {bare}({len(channels)}, Z, Y, X) for {', '.join(channels)}, got {given}"
        )
    try:
        z, y, x = (float(value) for value in spacing)
    except (TypeError, ValueError):
        z = y = x = math.nan
    if not all(0 < value < math.inf for value in (z, y, x)):
        raise CaseError(
            f"predict: 'spacing' must be three numbers (z, y, x) above 0, in mm, got {spacing!r}"
        )
    affine = np.diag([x, y, z, 1.0])
    grid, notes = _grid(array.shape[:0:-1], (x, y, z), affine, "the array")
    return Given(_volume(list(array), grid, notes, "the array"), np.ascontiguousarray)


def _of_itk(image: sitk.Image, channels: Sequence[str]) -> Given:
    """Take a scalar image, or one with a component for each channel."""
    name, axes = "the SimpleITK image", image.GetDimension()
    count = image.GetNumberOfComponentsPerPixel()
    if axes not in (2, 3) or count != len(channels):
        raise CaseError(
            f"{name}: must have 2 or 3 axes and {len(channels)} numbers per voxel ({', '.join(channels)}), it has "
            f"{axes} axes and {count}"
        )
    spacing = image.GetSpacing()
    affine = np.eye(4)
    affine[:axes, :axes] = np.reshape(image.GetDirection(), (axes, axes)) * spacing
    affine[:axes, 3] = image.GetOrigin()
    grid, notes = _grid(image.GetSize(), spacing, LPS_TO_RAS @ affine, name)
    voxels = sitk.GetArrayFromImage(image)
    parts = [voxels] if count == 1 else list(np.moveaxis(voxels, -1, 0))
    volume = _volume([part.reshape(grid.shape_zyx) for part in parts], grid, notes, name)

    def mask(labels: NDArray[Any]) -> sitk.Image:
        made = sitk.GetImageFromArray(labels.reshape(grid.stored_shape[::-1]))
        made.SetSpacing(image.GetSpacing())
        made.SetOrigin(image.GetOrigin())
        made.SetDirection(image.GetDirection())
        return made

    return Given(volume, mask)


def _of_nibabel(image: nib.spatialimages.SpatialImage, channels: Sequence[str]) -> Given:
    """Take a 3D image, or a 4D one with a volume for each channel."""
    name, count = "the nibabel image", len(channels)
    nifti = nib.Nifti1Image.from_image(image)
    nifti.update_header()
    grid, notes = nifti_header.grid_of(nifti.header, name, _ENDING, channels=count)
    voxels = np.asanyarray(nifti.dataobj).reshape(*grid.shape_zyx[::-1], count)
    volume = _volume([voxels[..., k].T for k in range(count)], grid, notes, name)

    def mask(labels: NDArray[Any]) -> nib.Nifti1Image:
        header = nifti_header.for_mask(grid, labels)
        return nib.Nifti1Image(labels.T.reshape(grid.stored_shape), image.affine, header)

    return Given(volume, mask)


def _grid(
    stored: Sequence[int], spacing_xyz_mm: Sequence[float], affine: NDArray[Any], name: str
) -> tuple[Grid, list[str]]:
    """A grid without a file, and notes about it."""
    shape, spacing = mask_shape(tuple(stored), name), tuple(map(float, spacing_xyz_mm))
    check_spacing(spacing, name)
    rows, notes = checked_affine(affine, spacing, name)
    grid = Grid(
        shape_zyx=array_shape(shape),
        spacing_mm=array_spacing(spacing),
        affine=rows,
        stored_shape=shape,
        ending=_ENDING,
    )
    return grid, notes


def _volume(channels: list[NDArray[Any]], grid: Grid, notes: list[str], name: str) -> Volume:
    """Check the voxels; of the caller's arrays none is changed."""
    checked = [checked_volume(channel, name) for channel in channels]
    notes = notes + [note for _, more in checked for note in more]
    return Volume(channels=[voxels for voxels, _ in checked], grid=grid, notes=notes)


def _itk_mask(mask: NDArray[Any], grid: Grid) -> sitk.Image:
    """A mask on the grid of a file, in ITK's terms."""
    axes = min(len(grid.stored_shape), 3)
    matrix = LPS_TO_RAS @ grid.matrix
    steps = np.linalg.norm(matrix[:axes, :axes], axis=0)
    image = sitk.GetImageFromArray(mask.reshape(grid.stored_shape[:axes][::-1]))
    image.SetSpacing(steps.tolist())
    image.SetOrigin(matrix[:axes, 3].tolist())
    image.SetDirection((matrix[:axes, :axes] / steps).ravel().tolist())
    return image
