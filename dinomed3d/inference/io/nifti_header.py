"""NIfTI headers as they are stored: checked, not repaired, and what of them a mask must keep.

nibabel repairs headers while it opens files (a voxel size of zero becomes one); here the bytes
are looked at before, and nibabel only does the arithmetic of quaternions and affines.
"""

from __future__ import annotations

import struct
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io.grid import (
    FLAT_SPACING,
    Grid,
    checked_affine,
    checked_spacing,
    decoded,
    encoded,
    file_axes,
    shape_zyx,
)

_MILLIMETRES = {1: 1000.0, 3: 0.001}  # xyzt_units: metres, micrometres
_GEOMETRY = (
    *("dim_info", "pixdim", "xyzt_units", "toffset", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
"""What places the voxels."""

Header = nib.Nifti1Header  # NIfTI-2's is a subclass of it


def parse(block: bytes, name: str) -> Header:
    """The header that a single-file NIfTI starts with, of version 1 or 2, either byte order.

    Args:
        block: The first 540 bytes of the file (fewer if it is shorter).
        name: The file, for messages.

    Raises:
        CaseError: It is no NIfTI file, half of a pair, or says impossible things.
    """
    for order, kind in ((o, k) for o in "<>" for k in (nib.Nifti1Header, nib.Nifti2Header)):
        size = kind.template_dtype.itemsize
        if len(block) >= size and struct.unpack(f"{order}i", block[:4])[0] == size:
            header = kind(block[:size], endianness=order, check=False)
            break
    else:
        raise CaseError(f"{name}: is no NIfTI file: it does not start with a NIfTI header")
    magic = bytes(header["magic"].item())[:3]
    if magic in (b"ni1", b"ni2"):
        raise CaseError(f"{name}: is half of a pair of .hdr and .img; save it as one .nii file")
    if magic not in (b"n+1", b"n+2"):
        raise CaseError(f"{name}: is no NIfTI file: its header lacks the magic n+1 (Analyze 7.5?)")
    if not 1 <= int(header["dim"][0]) <= 7:
        raise CaseError(f"{name}: must have 1 to 7 axes, its header says {int(header['dim'][0])}")
    offset = float(header["vox_offset"])
    if not (np.isfinite(offset) and header.sizeof_hdr <= offset < 2**40):
        raise CaseError(f"{name}: its voxels must lie behind the header, it says byte {offset:g}")
    return header


def stored_type(header: Header, name: str) -> np.dtype[Any]:
    """The type of the voxels in the file, with its byte order.

    Raises:
        CaseError: The header names none.
    """
    code = int(header["datatype"])
    try:
        stored = np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError):
        stored = np.dtype("V0")
    if stored.itemsize == 0:  # single bits as well, which nobody reads
        raise CaseError(f"{name}: its data type must be one of NIfTI's for numbers, it is {code}")
    return stored


def slope_intercept(header: Header, name: str) -> tuple[float, float] | None:
    """How values are made of stored numbers; None where they are the same.

    Raises:
        CaseError: A slope without a finite intercept.
    """
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not np.isfinite(slope) or slope == 0 or (slope, intercept) == (1, 0):
        return None
    if not np.isfinite(intercept):
        raise CaseError(f"{name}: scl_slope is {slope:g}, so scl_inter must be finite: {intercept}")
    return slope, intercept


def grid_of(header: Header, name: str, ending: str, *, channels: int) -> tuple[Grid, list[str]]:
    """The grid of a mask for the file with this header.

    Args:
        header: As `parse` gives it.
        name: The file, for messages.
        ending: `.nii` or `.nii.gz`.
        channels: How many channels the file must hold.

    Raises:
        CaseError: Shape, voxel size or affine cannot place a mask; the message says which.
    """
    dim = [int(length) for length in header["dim"]]
    stored = file_axes(tuple(dim[1 : dim[0] + 1]), name, channels=channels)
    header = _with_sound_codes(header, name)
    unit = _MILLIMETRES.get(int(header["xyzt_units"]) % 8, 1.0)
    spacing = tuple(float(value) * unit for value in header["pixdim"][1 : min(len(stored), 3) + 1])
    checked_spacing(spacing, name)
    affine, notes = checked_affine(_best_affine(header, name, unit), spacing, name)
    notes += _form_notes(header, stored, unit)
    spacing_z = spacing[2] if len(spacing) > 2 else max(spacing) * FLAT_SPACING
    grid = Grid(
        shape_zyx=shape_zyx(stored),
        spacing_mm=(spacing_z, spacing[1], spacing[0]),
        affine=affine,
        stored_shape=stored,
        ending=ending,
        header=encoded(_geometry(header, stored).binaryblock),
    )
    return grid, notes


def from_affine(
    affine: NDArray[np.float64], spacing_xyz_mm: tuple[float, ...], stored: tuple[int, ...]
) -> str:
    """`Grid.header` for a scan that has no NIfTI header: q and sform of code 1 (scanner)."""
    header = nib.Nifti1Header()
    header.set_data_shape(stored)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header["pixdim"][1:4] = spacing_xyz_mm
    header.set_xyzt_units("mm")
    return encoded(_geometry(header, stored).binaryblock)


def for_mask(grid: Grid, mask: NDArray[Any]) -> Header:
    """The header of a mask's file: the geometry bit by bit, the rest as a label image has it.

    Args:
        grid: Its `header` must be set.
        mask: (Z, Y, X) uint8 or uint16.
    """
    assert grid.header is not None
    header = parse(decoded(grid.header), "the kept header")
    header.set_data_dtype(mask.dtype)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_max"] = mask.max()
    header["intent_code"] = 1002  # label
    header["descrip"] = b"dinomed3d"
    return header


def _with_sound_codes(header: Header, name: str) -> Header:
    """A copy whose pixdim[0] is 1 or -1 (0 counts as 1, says NIfTI) and whose codes are known."""
    header = header.copy()
    if header["pixdim"][0] != -1:
        header["pixdim"][0] = 1
    for form in ("qform_code", "sform_code"):
        if not 0 <= int(header[form]) <= 5:
            raise CaseError(f"{name}: its {form} must be 0 to 5, it is {int(header[form])}")
    return header


def _best_affine(header: Header, name: str, unit: float) -> NDArray[np.float64]:
    working = header.copy()
    if working["dim"][0] == 2 and not working["pixdim"][3] > 0:
        working["pixdim"][3] = 1  # of no meaning in a 2D file, but the quaternion's code wants it
    try:
        affine = np.array(working.get_best_affine(), np.float64)
    except (HeaderDataError, ValueError) as err:
        raise CaseError(f"{name}: its qform is no rotation ({err}); correct the header") from err
    affine[:3] *= unit
    return affine


def _form_notes(header: Header, stored: tuple[int, ...], unit: float) -> list[str]:
    notes = []
    if unit != 1:
        notes.append(f"its header counts in units of {unit:g} mm; converted to mm")
    if header["qform_code"] == 0 and header["sform_code"] == 0:
        notes.append("its header says no orientation (q and sform code 0): taken as nibabel does")
    if header["qform_code"] > 0 and header["sform_code"] > 0:
        try:
            apart = np.abs(header.get_qform() - header.get_sform())[:3]
        except (HeaderDataError, ValueError):
            notes.append("its qform is no rotation; the sform was used")
        else:
            reach_mm = (apart @ [*((*stored, 1)[:3]), 1]).max() * unit
            if reach_mm > 0.1 * float(header["pixdim"][1:3].min()) * unit:
                notes.append(
                    f"its qform and sform place it up to {reach_mm:.3g} mm apart; the sform counts"
                )
    return notes


def _geometry(header: Header, stored: tuple[int, ...]) -> Header:
    """A header of the same version, little-endian, with only what places the voxels."""
    result = type(header)(endianness="<")
    result["dim"] = [len(stored), *stored, *[1] * (7 - len(stored))]
    for key in _GEOMETRY:
        result[key] = header[key]
    result["vox_offset"] = result.sizeof_hdr + 4
    return result
