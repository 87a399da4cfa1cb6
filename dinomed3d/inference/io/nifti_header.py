"""NIfTI headers as they are stored: checked, not repaired, and the fields that a mask must keep.

nibabel repairs headers while it opens files (a voxel size of zero becomes one); here the raw fields
are checked first, and nibabel only does the arithmetic of quaternions and affines.
"""

from __future__ import annotations

import base64
import struct
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io.grid import (
    Grid,
    array_shape,
    array_spacing,
    check_spacing,
    checked_affine,
    mask_shape,
)

_MILLIMETRES = {1: 1000.0, 3: 0.001}  # xyzt_units: metres, micrometres
_LEAST_EXTENSION = 16
"""Bytes of the smallest extension of a header."""
_GEOMETRY = (
    *("dim_info", "pixdim", "xyzt_units", "toffset", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
"""Fields that place the voxels."""

Header = nib.Nifti1Header  # NIfTI-2's is a subclass of it


def parse(block: bytes, name: str) -> Header:
    """The header that a single-file NIfTI starts with, of version 1 or 2, either byte order.

    Args:
        block: The first 540 bytes of the file or more (fewer if it is shorter).
        name: The file, for messages.

    Raises:
        CaseError: It is not NIfTI, half of a pair, or impossible.
    """
    for order, kind in ((o, k) for o in "<>" for k in (nib.Nifti1Header, nib.Nifti2Header)):
        size = kind.template_dtype.itemsize
        if len(block) >= size and struct.unpack(f"{order}i", block[:4])[0] == size:
            header = kind(block[:size], endianness=order, check=False)
            break
    else:
        raise CaseError(f"{name}: is not NIfTI: it does not start with a NIfTI header")
    magic = bytes(header["magic"].item())[:3]
    if magic in (b"ni1", b"ni2"):
        raise CaseError(f"{name}: is half of a pair of .hdr and .img; save it as one .nii file")
    if magic not in (b"n+1", b"n+2"):
        raise CaseError(f"{name}: is not NIfTI: its header lacks the magic n+1 (Analyze 7.5?)")
    if not 1 <= int(header["dim"][0]) <= 7:
        raise CaseError(f"{name}: must have 1 to 7 axes, its header says {int(header['dim'][0])}")
    offset = float(header["vox_offset"])
    if not (np.isfinite(offset) and header.sizeof_hdr <= offset < 2**40):
        raise CaseError(f"{name}: its voxels must start behind the header, it says byte {offset:g}")
    return header


def lacks_room_for_extension(header: Header, block: bytes) -> bool:
    """Whether an extension is announced, but the voxels begin where it would be.

    Args:
        header: of `parse`.
        block: the start of the file, from which it was parsed.
    """
    announced = block[header.sizeof_hdr : header.sizeof_hdr + 1] not in (b"", b"\0")
    return announced and int(header["vox_offset"]) < header.sizeof_hdr + 4 + _LEAST_EXTENSION


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
    if stored.itemsize == 0:  # also single bits, which no reader supports
        raise CaseError(f"{name}: its data type must be one of NIfTI's numeric types, it is {code}")
    return stored


def slope_intercept(header: Header, name: str) -> tuple[float, float] | None:
    """How values follow from stored numbers; None where they are equal.

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
        CaseError: Shape, voxel size or affine cannot place a mask.
    """
    dim = [int(length) for length in header["dim"]]
    stored = mask_shape(tuple(dim[1 : dim[0] + 1]), name, channels=channels)
    header = _with_sound_codes(header, name)
    unit = _unit(header)
    numbers = tuple(float(value) for value in header["pixdim"][1 : min(len(stored), 3) + 1])
    spacing = tuple(value * unit for value in numbers)
    check_spacing(spacing, name)
    affine, notes = checked_affine(_best_affine(header, name, unit), spacing, name)
    notes += _form_notes(header, stored, unit)
    grid = Grid(
        shape_zyx=array_shape(stored),
        spacing_mm=array_spacing(spacing),
        affine=affine,
        stored_shape=stored,
        ending=ending,
        header_spacing=None if unit == 1 else array_spacing(numbers),
        header=_encoded_geometry(header, stored),
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
    return _encoded_geometry(header, stored)


def for_mask(grid: Grid, mask: NDArray[Any]) -> Header:
    """The header of a mask's file: the geometry unchanged, the rest as for a label image.

    Args:
        grid: Its `header` must be set.
        mask: (Z, Y, X) uint8 or uint16.
    """
    assert grid.header is not None
    header = parse(base64.b64decode(grid.header), "the stored header")
    header.set_data_dtype(mask.dtype)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_max"] = mask.max()
    header["intent_code"] = 1002  # label
    header["descrip"] = b"dinomed3d"
    return header


def same_places(found: str, wanted: str) -> bool:
    """Whether every reader puts the voxels of two files of one shape in the same places, whatever else they store.

    Programs in which masks are corrected write headers of their own: codes, units and the numbers of axes that do
    not exist differ, or one of the two forms is left out.

    Args:
        found: `Grid.header` of one.
        wanted: That of the other.
    """
    one, other = (parse(base64.b64decode(text), "the stored header") for text in (found, wanted))
    ours, theirs = _forms(one), _forms(other)
    return all(
        _close(matrix, theirs.get(form, theirs["best"])) for form, matrix in ours.items()
    ) and _close(_voxel_size(one), _voxel_size(other))


def _forms(header: Header) -> dict[str, NDArray[np.float64]]:
    """The affines that are set, and the one that nibabel takes, in mm; NaN where a qform is no rotation."""
    unit = _unit(header)
    found = {"best": _best_affine(header, "the stored header", unit)}
    for form in ("qform", "sform"):
        if int(header[f"{form}_code"]) > 0:
            alone = header.copy()
            alone["sform_code" if form == "qform" else "qform_code"] = 0
            try:
                found[form] = _best_affine(alone, "the stored header", unit)
            except CaseError:
                found[form] = np.full((4, 4), np.nan)
    return found


def _voxel_size(header: Header) -> NDArray[np.float64]:
    axes = min(int(header["dim"][0]), 3)
    return np.array(header["pixdim"][1 : axes + 1], np.float64) * _unit(header)


def _close(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return np.allclose(one, other, rtol=1e-6, atol=1e-4, equal_nan=True)


def _unit(header: Header) -> float:
    """Of lengths, mm."""
    return _MILLIMETRES.get(int(header["xyzt_units"]) % 8, 1.0)


def _with_sound_codes(header: Header, name: str) -> Header:
    """A copy whose pixdim[0] is 1 or -1 (NIfTI: 0 counts as 1) and whose codes are known."""
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
        working["pixdim"][3] = 1  # without meaning in a 2D file, but nibabel needs it
    try:
        affine = np.array(working.get_best_affine(), np.float64)
    except (HeaderDataError, ValueError) as err:
        raise CaseError(f"{name}: its qform is not a rotation ({err}); correct the header") from err
    affine[:3] *= unit
    return affine


def _form_notes(header: Header, stored: tuple[int, ...], unit: float) -> list[str]:
    notes = []
    if unit != 1:
        notes.append(f"its header uses units of {unit:g} mm; converted to mm")
    if header["qform_code"] == 0 and header["sform_code"] == 0:
        notes.append("its header has no orientation (q and sform code 0): taken as nibabel does")
    if header["qform_code"] > 0 and header["sform_code"] > 0:
        try:
            apart = np.abs(header.get_qform() - header.get_sform())[:3]
        except (HeaderDataError, ValueError):
            notes.append("its qform is not a rotation; the sform was used")
        else:
            reach_mm = (apart @ [*((*stored, 1)[:3]), 1]).max() * unit
            if reach_mm > 0.1 * float(header["pixdim"][1:3].min()) * unit:
                notes.append(
                    f"its qform and sform place it up to {reach_mm:.3g} mm apart; the sform was used"
                )
    return notes


def _encoded_geometry(header: Header, stored: tuple[int, ...]) -> str:
    """`Grid.header`: a little-endian header of the same version with only what places voxels."""
    result = type(header)(endianness="<")
    result["dim"] = [len(stored), *stored, *[1] * (7 - len(stored))]
    for key in _GEOMETRY:
        result[key] = header[key]
    result["vox_offset"] = result.sizeof_hdr + 4
    return base64.b64encode(result.binaryblock).decode("ascii")
