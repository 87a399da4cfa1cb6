"""Images in, masks out: the channels of a case on one grid, and a mask on exactly that grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import Case, CaseError, Scan
from dinomed3d.inference.io import itk, nifti, nifti_header, other_scans, pictures
from dinomed3d.inference.io.grid import Grid, Volume, corner_distance_mm
from dinomed3d.inference.io.label_table import LabelValues
from dinomed3d.runtime.files.atomic_files import new_file

__all__ = [
    *(
        "ENDINGS",
        "MASK_ENDINGS",
        "SCAN_ENDINGS",
        "Grid",
        "Volume",
        "check_mask",
        "read_case",
        "read_grid",
        "read_mask",
    ),
    "write_mask",
]

_FORMATS = {".nii.gz": nifti, ".nii": nifti, ".mha": itk, ".nrrd": itk}
_SCANS = {
    **_FORMATS,
    **dict.fromkeys(itk.DETACHED, itk),
    **dict.fromkeys(other_scans.ENDINGS, other_scans),
}
SCAN_ENDINGS = tuple(sorted(_SCANS, key=len, reverse=True))
"""Endings of scans, other than DICOM and those of `pictures`; longer ones first."""
ENDINGS = tuple(_FORMATS)
"""Endings of images and masks, other than DICOM and those of `pictures`."""
MASK_ENDINGS = (*ENDINGS, *pictures.ENDINGS)
"""Endings that masks can have."""
_SAME_MM = 1e-3
"""Distance in mm below which grids of two channels are equal."""
_SAME_VOXELS = 0.01
"""Fraction of the smallest voxel side: grids of two channels that are closer count as equal, with a note."""


def read_grid(scan: Scan, *, channels: int = 1) -> Grid:
    """The grid that a mask of this scan gets, from headers alone.

    Args:
        scan: The image.
        channels: How many it must hold; more than one along the last of four axes.

    Raises:
        CaseError: It cannot be read, or cannot place a mask.
    """
    if scan.ending == ".dcm":
        from dinomed3d.inference.io import dicom  # imports pydicom only where it is needed

        return dicom.read_grid(scan)
    if scan.reader:
        return pictures.read_grid(scan)
    path, image_format = _format_of(scan)
    grid: Grid = image_format.read_grid(path, scan.ending, channels=channels)
    return grid


def read_case(case: Case, channel_names: Sequence[str]) -> Volume:
    """All channels of a case on one grid.

    Args:
        case: A scan for each channel, or one 4D scan that holds them all.
        channel_names: The model's, in order.

    Returns:
        The channels in that order, on the grid of the first scan.

    Raises:
        CaseError: A scan cannot be read, or they lie on different grids.
    """
    names = list(channel_names)
    if case.scans[0].reader:
        return pictures.read(case, names)
    if len(case.scans) not in (1, len(names)):
        raise CaseError(
            f"{case.id}: must have {len(names)} scans ({', '.join(names)}), it has {len(case.scans)}"
        )
    per_scan = len(names) // len(case.scans)
    volumes = [_read_scan(scan, channels=per_scan) for scan in case.scans]
    first = volumes[0]
    notes = []
    for index, volume in enumerate(volumes):
        label = f"{names[index]}: " if len(volumes) > 1 else ""
        notes += [label + note for note in volume.notes]
        if index:
            notes += _same_grid(case, names, first.grid, volume.grid, index)
    channels = [channel for volume in volumes for channel in volume.channels]
    return Volume(channels=channels, grid=first.grid, notes=notes)


def write_mask(
    mask: NDArray[Any], grid: Grid, path: Path, *, labels: LabelValues | None = None
) -> None:
    """A mask on exactly the grid of its scan, in the format `grid.ending`.

    It appears under its name only when it is complete.

    Args:
        mask: (Z, Y, X) of `grid.shape_zyx`, uint8 or uint16.
        grid: As `read_grid` or `read_case` gave it.
        path: Ends in `grid.ending`; its folder exists.
        labels: Name of each label or region -> its values, kept with the mask where the format can:
            NIfTI and NRRD.

    Raises:
        ValueError: Another shape, type or ending.
        CaseError: The format cannot store this geometry.
        WriteError: It cannot be written.
    """
    if mask.shape != grid.shape_zyx or mask.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"write_mask: 'mask' must be uint8 or uint16 of {grid.shape_zyx}, "
            f"got {mask.dtype} of {mask.shape}"
        )
    if not path.name.endswith(grid.ending):
        raise ValueError(f"write_mask: 'path' must end in {grid.ending}, got {path.name}")
    with new_file(path) as part:
        voxels = np.ascontiguousarray(mask)
        if grid.ending in _FORMATS:
            _FORMATS[grid.ending].write(voxels, grid, part, labels)
        else:
            pictures.write(voxels, grid, part)


def check_mask(path: Path, grid: Grid) -> str | None:
    """Whether a mask opens completely and lies on this grid.

    Returns:
        None if so, otherwise what is wrong with it, in one line.
    """
    try:
        volume = _mask_volume(path, grid)
    except CaseError as err:
        return str(err)
    found = volume.grid
    if _as_labels(volume.channels[0]) is None:
        return f"{path}: must hold whole numbers from 0 to 65535, it holds {volume.channels[0].dtype} of others"
    if found.ending != grid.ending or found.stored_shape != grid.stored_shape:
        return (
            f"{path}: must be {grid.ending} of {grid.stored_shape}, "
            f"it is {found.ending} of {found.stored_shape}"
        )
    if not np.allclose(found.matrix, grid.matrix, rtol=1e-6, atol=1e-4):
        return f"{path}: lies {corner_distance_mm(found, grid):.3g} mm off its scan's grid"
    if grid.ending in (".nii", ".nii.gz") and not _same_header(found, grid):
        return f"{path}: its qform, sform or voxel size differ from its scan's"
    return None


def read_mask(path: Path, grid: Grid) -> NDArray[Any]:
    """The values (Z, Y, X), uint8 or uint16, of a mask for which `check_mask` finds nothing wrong.

    Raises:
        CaseError: It cannot be read, or holds no labels.
    """
    labels = _as_labels(_mask_volume(path, grid).channels[0])
    if labels is None:
        raise CaseError(f"{path}: must hold whole numbers from 0 to 65535")
    return labels


def _as_labels(voxels: NDArray[Any]) -> NDArray[Any] | None:
    """A mask as uint8 or uint16, of whatever type programs save what was corrected; None if it is none."""
    if voxels.dtype in (np.uint8, np.uint16):
        return voxels
    low, high = voxels.min(), voxels.max()
    if not (low >= 0 and high <= np.iinfo(np.uint16).max):  # so of NaN, too
        return None
    labels = voxels.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16)
    return labels if np.array_equal(labels, voxels) else None


def _same_header(found: Grid, grid: Grid) -> bool:
    if found.header == grid.header or found.header is None or grid.header is None:
        return found.header == grid.header
    return nifti_header.same_places(found.header, grid.header)


def _mask_volume(path: Path, grid: Grid) -> Volume:
    if grid.ending in pictures.ENDINGS:
        return pictures.read(Case(id="", scans=(pictures.mask_scan(path, grid),)), ["mask"])
    return _read_scan(Scan(files=(str(path),), ending=_ending(path)), channels=1)


def _read_scan(scan: Scan, *, channels: int) -> Volume:
    if scan.ending == ".dcm":
        from dinomed3d.inference.io import dicom  # imports pydicom only where it is needed

        return dicom.read(scan, channels=channels)
    path, image_format = _format_of(scan)
    volume: Volume = image_format.read(path, scan.ending, channels=channels)
    return volume


def _format_of(scan: Scan) -> tuple[Path, ModuleType]:
    """The file of a scan, and the module that reads it."""
    path = Path(scan.files[0])
    if scan.ending not in _SCANS:
        raise CaseError(f"{path}: must end in one of {', '.join(_SCANS)}, it is {scan.ending!r}")
    return path, _SCANS[scan.ending]


def _same_grid(case: Case, names: list[str], first: Grid, other: Grid, index: int) -> list[str]:
    """Notes about two grids that count as one."""
    files = f"{_name(case.scans[index])} ({names[index]}) and {_name(case.scans[0])} ({names[0]})"
    if other.shape_zyx != first.shape_zyx:
        raise CaseError(
            f"{files} must lie on one grid, their shapes (z, y, x) are {other.shape_zyx} and "
            f"{first.shape_zyx}; resample one to the other"
        )
    apart_mm = corner_distance_mm(first, other)
    if apart_mm > max(_SAME_MM, _SAME_VOXELS * min(first.spacing_mm)):
        raise CaseError(
            f"{files} must lie on one grid, they are up to {apart_mm:.3g} mm apart; "
            "resample one to the other"
        )
    if apart_mm > _SAME_MM:
        return [f"{names[index]}: lies up to {apart_mm:.2g} mm off {names[0]}; taken as one grid"]
    return []


def _name(scan: Scan) -> str:
    if scan.archive is not None:
        return scan.archive
    return scan.files[0] if len(scan.files) == 1 else str(Path(scan.files[0]).parent)


def _ending(path: Path) -> str:
    name = path.name.lower()
    return next((e for e in ENDINGS if name.endswith(e)), path.suffix)
