"""GIPL, FreeSurfer's MGH and NIfTI pairs: scans whose masks are written as NIfTI on the same grid."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io import nifti, nifti_header
from dinomed3d.inference.io.grid import (
    Grid,
    Volume,
    array_shape,
    array_spacing,
    check_spacing,
    checked_affine,
    mask_shape,
)
from dinomed3d.inference.io.padding import longest_padding, too_long
from dinomed3d.inference.io.voxels import fill, kept_type, slices_per_chunk

_PAIR = (b"ni1\0", b"ni2\0")
_MGH_BYTES, _GIPL_BYTES = 284, 256
_MGH_ENDINGS = (".mgz", ".mgh")
_LARGEST_TAG = 99
_GIPL_MAGIC = (719555000, 4026526128)
_GIPL_TYPES = {7: "i1", 8: "u1", 15: ">i2", 16: ">u2", 31: ">u4", 32: ">i4", 64: ">f4", 65: ">f8"}
_LONGEST_AXIS = 2**15 - 1
_MOST_DEFLATED = 1040
"""deflate makes at most 1032 bytes of one."""


class _Stored:
    """What a header says: where voxels are and what they mean."""

    def __init__(
        self,
        path: Path,
        offset: int,
        dtype: np.dtype[Any],
        grid: Grid,
        notes: list[str],
        *,
        scale: tuple[float, float] | None = None,
    ) -> None:
        self.path, self.offset, self.dtype = path, offset, dtype
        self.grid, self.notes, self.scale = grid, notes, scale


def read_grid(path: Path, ending: str, *, channels: int = 1) -> Grid:
    """As `nifti.read_grid`, for these formats."""
    return _HEADERS[ending](path, ending, channels).grid


def read(path: Path, ending: str, *, channels: int = 1) -> Volume:
    """As `nifti.read`, for these formats; voxels are read here, not by the libraries."""
    stored = _HEADERS[ending](path, ending, channels)
    name, shape = str(path), stored.grid.shape_zyx
    needed = stored.offset + channels * math.prod(shape) * stored.dtype.itemsize
    volumes = []
    with _opened(stored.path) as (stream, size):
        if size < needed:
            raise CaseError(
                f"{name}: is cut off: its header needs {needed} bytes, there are {size}"
            )
        stream.read(stored.offset)
        for _ in range(channels):
            kept = kept_type(stored.dtype, name, scaled=stored.scale is not None)
            volumes.append(np.empty(shape, kept))
            chunks = _chunks(stream, shape, stored.dtype, name)
            stored.notes += fill(volumes[-1], chunks, name, scale=stored.scale)
        padding = longest_padding(stored.grid.stored_shape, stored.dtype.itemsize)
        rest = stream.read(padding + 1)
    tagged = ending in _MGH_ENDINGS and _are_tags(rest)
    if len(rest) > padding and not tagged:
        shape_xyz, more = stored.grid.stored_shape, f"more than {padding} bytes more"
        raise too_long(name, shape_xyz, stored.dtype.name, needed, more)
    return Volume(channels=volumes, grid=stored.grid, notes=stored.notes)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], float]]:
    """The content, unpacked if it is packed, and how many bytes it can be at most."""
    try:
        size = path.stat().st_size
        if path.suffix.lower() not in (".mgz", ".gz"):
            with open(path, "rb") as stream:
                yield stream, size
            return
    except OSError as err:
        raise CaseError(f"{path}: cannot be read: {err.strerror or err}") from err
    with nifti.opened(path, ".nii.gz") as stream:
        yield stream, size * _MOST_DEFLATED


def _are_tags(rest: bytes) -> bool:
    """Whether what follows MGH's voxels is 4 or 5 parameters of the scan and then the number of a tag."""
    numbers = [int.from_bytes(rest[at : at + 4], "big") for at in (16, 20)]
    return len(rest) <= 20 or any(0 < number <= _LARGEST_TAG for number in numbers)


def _start(path: Path, count: int) -> bytes:
    with _opened(path) as (stream, _):
        return stream.read(count)


def _chunks(
    stream: IO[bytes], shape: tuple[int, int, int], stored: np.dtype[Any], name: str
) -> Iterator[NDArray[Any]]:
    z, y, x = shape
    step = slices_per_chunk(y * x * 8)
    for start in range(0, z, step):
        count = min(step, z - start)
        content = stream.read(count * y * x * stored.itemsize)
        if len(content) < count * y * x * stored.itemsize:
            raise CaseError(f"{name}: is cut off: voxels are missing at its end")
        yield np.frombuffer(content, stored).reshape(count, y, x)


def as_nifti(
    stored: tuple[int, ...], affine: NDArray[np.float64], spacing: tuple[float, ...], name: str
) -> tuple[Grid, list[str]]:
    """The grid of a NIfTI mask.

    Args:
        stored: shape of the mask, x first.
        affine: (4, 4) voxel (x, y, z) -> mm, RAS.
        spacing: mm, (x, y[, z]).
        name: the file, for messages.
    """
    if max(stored) > _LONGEST_AXIS:
        raise CaseError(
            f"{name}: its mask would be NIfTI, which has up to {_LONGEST_AXIS} voxels along an axis; its shape is "
            f"{' x '.join(map(str, stored))}"
        )
    check_spacing(spacing, name)
    rows, notes = checked_affine(affine, spacing, name)
    three = (*spacing, 1.0)[:3]
    grid = Grid(
        shape_zyx=array_shape(stored),
        spacing_mm=array_spacing(spacing),
        affine=rows,
        stored_shape=stored,
        ending=".nii.gz",
        header=nifti_header.from_affine(np.array(rows), three, stored),
    )
    return grid, notes


def _mgh(path: Path, ending: str, channels: int) -> _Stored:
    name, block = str(path), _start(path, _MGH_BYTES)
    if len(block) < _MGH_BYTES or struct.unpack(">i", block[:4])[0] != 1:
        raise CaseError(f"{name}: is not FreeSurfer's MGH: it does not start with its header")
    header = nib.freesurfer.mghformat.MGHHeader(block, check=False)
    try:
        dtype = np.dtype(header.get_data_dtype())
    except (KeyError, nib.spatialimages.HeaderDataError) as err:
        raise CaseError(f"{name}: its data type {int(header['type'])} is none of MGH's") from err
    dims = [int(n) for n in header["dims"]]
    stored = mask_shape(tuple(dims if dims[3] > 1 else dims[:3]), name, channels=channels)
    spacing = tuple(float(v) for v in header["delta"])
    affine = np.array(header.get_affine(), np.float64)
    grid, notes = as_nifti(stored, affine, spacing, name)
    if int(header["goodRASFlag"]) != 1:
        notes.append("its header has no orientation: taken as FreeSurfer does (coronal)")
    return _Stored(path, _MGH_BYTES, dtype.newbyteorder(">"), grid, notes)


def _gipl(path: Path, ending: str, channels: int) -> _Stored:
    name, block = str(path), _start(path, _GIPL_BYTES)
    if len(block) < _GIPL_BYTES or struct.unpack(">I", block[252:])[0] not in _GIPL_MAGIC:
        raise CaseError(f"{name}: is not GIPL: its header lacks the magic number")
    dims = struct.unpack(">4H", block[:8])
    code = struct.unpack(">H", block[8:10])[0]
    if code not in _GIPL_TYPES:
        raise CaseError(f"{name}: its data type {code} is not one of {sorted(_GIPL_TYPES)}")
    axes = 4 if dims[3] > 1 else 3 if dims[2] > 0 else 2
    stored = mask_shape(tuple(dims[:axes]), name, channels=channels)
    spacing = struct.unpack(">4f", block[10:26])[: min(len(stored), 3)]
    affine = np.diag([-s for s in spacing[:2]] + [*spacing[2:], 1.0][:1] + [1.0])
    affine[:3, 3] = np.multiply(struct.unpack(">3d", block[204:228]), (-1, -1, 1))
    grid, notes = as_nifti(stored, affine, spacing, name)
    notes.append(
        "GIPL stores no orientation: axes are taken as left, posterior, superior, as ITK does"
    )
    return _Stored(path, _GIPL_BYTES, np.dtype(_GIPL_TYPES[code]), grid, notes)


def _pair(path: Path, ending: str, channels: int) -> _Stored:
    """The header of a NIfTI pair, whose voxels are in the `.img` next to it."""
    name, block = str(path), _start(path, 540)
    is_second = block[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c")  # 540 bytes
    at = 4 if is_second else 344
    if not is_second and block[:4] not in (b"\x5c\x01\0\0", b"\0\0\x01\x5c"):  # 348 bytes
        raise CaseError(
            f"{name}: is no header of NIfTI or Analyze (of ENVI or Interfile?); convert the image to .nii.gz"
        )
    if block[at : at + 4] not in _PAIR:
        raise CaseError(
            f"{name}: is half of a pair without NIfTI's magic (Analyze 7.5?), which does not say which side is "
            f"left; convert it with 'fslchfiletype NIFTI_GZ {path.name}' or nibabel, and check left and right"
        )
    order = ">" if block[0] == 0 else "<"
    single = block[at : at + 4].replace(b"i", b"+")
    where = slice(168, 176) if is_second else slice(108, 112)
    offset = struct.unpack(order + ("q" if is_second else "f"), block[where])[0]
    behind = struct.pack(order + ("q" if is_second else "f"), 544 if is_second else 352)
    patched = bytearray(block)
    patched[at : at + 4], patched[where] = single, behind
    header = nifti_header.parse(bytes(patched), name)
    grid, notes = nifti_header.grid_of(header, name, ".nii.gz", channels=channels)
    if not (math.isfinite(offset) and 0 <= offset < 2**40):
        raise CaseError(f"{name}: its voxels must start at a byte of the .img, it says {offset:g}")
    voxels = next(
        (
            found
            for suffix in (".img", ".IMG")
            if (found := path.with_name(path.name[: -len(".hdr")] + suffix)).is_file()
        ),
        None,
    )
    if voxels is None:
        packed = path.with_name(f"{path.stem}.img.gz")
        advice = f"; unpack {packed.name}" if packed.is_file() else ""
        raise CaseError(f"{name}: its voxels are missing: there is no {path.stem}.img{advice}")
    return _Stored(
        voxels,
        int(offset),
        nifti_header.stored_type(header, name),
        grid,
        notes,
        scale=nifti_header.slope_intercept(header, name),
    )


_HEADERS: dict[str, Callable[[Path, str, int], _Stored]] = {
    **dict.fromkeys(_MGH_ENDINGS, _mgh),
    **dict.fromkeys((".gipl", ".gipl.gz"), _gipl),
    ".hdr": _pair,
}
ENDINGS = tuple(_HEADERS)
