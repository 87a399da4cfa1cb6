"""NIfTI files, read and written as streams: one copy of the volume in memory, never float64."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io import nifti_header
from dinomed3d.inference.io.grid import Grid, Volume
from dinomed3d.inference.io.label_table import LabelValues, nifti_extensions
from dinomed3d.inference.io.padding import longest_padding, too_long
from dinomed3d.inference.io.voxels import fill, kept_type, slices_per_chunk

_HEADER_BYTES = 544
"""Length of a NIfTI-2 header, the longer of the two versions, with the four bytes that announce extensions."""
_LEAST_BEHIND_HEADER = 4
"""Bytes between a header and voxels: they announce extensions."""
_MAX_DEFLATE = 1040
"""deflate makes at most 1032 bytes of one."""
_COMPRESSION = 3
"""gzip level of masks: as fast as 1 and a fifth smaller; 6 takes twice as long."""


def read_grid(path: Path, ending: str, *, channels: int = 1) -> Grid:
    """The grid of a mask for this file; reads its header alone.

    Raises:
        CaseError: It does not exist, is not NIfTI, or its header cannot place a mask.
    """
    with opened(path, ending) as stream:
        header = nifti_header.parse(stream.read(_HEADER_BYTES), str(path))
    return nifti_header.grid_of(header, str(path), ending, channels=channels)[0]


def read(path: Path, ending: str, *, channels: int = 1) -> Volume:
    """All voxels of a file, and its grid.

    Args:
        path: The file.
        ending: `.nii` or `.nii.gz`.
        channels: With more than one the file must be 4D, with so many along its last axis.

    Raises:
        CaseError: As `read_grid`; or it is cut off or damaged, or its values are not finite
            grey values.
    """
    name = str(path)
    with opened(path, ending) as stream:
        block = stream.read(_HEADER_BYTES)
        header = nifti_header.parse(block, name)
        grid, notes = nifti_header.grid_of(header, name, ending, channels=channels)
        stored = nifti_header.stored_type(header, name)
        scale = nifti_header.slope_intercept(header, name)
        kept = kept_type(stored, name, scaled=scale is not None)
        offset = int(header["vox_offset"])
        needed = offset + channels * math.prod(grid.shape_zyx) * stored.itemsize
        size = path.stat().st_size * (_MAX_DEFLATE if ending == ".nii.gz" else 1)
        if size < needed:
            raise CaseError(f"{name}: is cut off: its header needs {needed} bytes, it has {size}")
        padding = longest_padding(grid.stored_shape, stored.itemsize)
        if ending == ".nii" and size - needed > padding:
            raise too_long(
                name, grid.stored_shape, stored.name, needed, f"{size - needed} bytes more"
            )
        stream.seek(offset)
        volumes = []
        for _ in range(channels):
            volumes.append(np.empty(grid.shape_zyx, kept))
            notes += fill(volumes[-1], _chunks(stream, grid, stored, name), name, scale=scale)
        rest = stream.read(padding + 1)  # to the end, where gzip's checksum is compared
        if len(rest) > padding:
            raise too_long(
                name, grid.stored_shape, stored.name, needed, f"more than {padding} bytes more"
            )
        inside_header = len(rest) == header.sizeof_hdr + _LEAST_BEHIND_HEADER - offset
        no_room = any(rest) and nifti_header.lacks_room_for_extension(header, block)
        if (rest and inside_header) or no_room:
            raise CaseError(
                f"{name}: its voxels begin at byte {offset}, where its header or an extension of it ends later, and "
                f"{len(rest)} bytes follow them; correct vox_offset, or save it again"
            )
        if rest:
            notes.append(
                f"{len(rest)} bytes follow its voxels, fewer than one more plane of them takes; ignored"
            )
    return Volume(channels=volumes, grid=grid, notes=notes)


def write(mask: NDArray[Any], grid: Grid, path: Path, labels: LabelValues | None = None) -> None:
    """A mask with the geometry of its scan; equal masks give equal bytes.

    Args:
        mask: (Z, Y, X) uint8 or uint16.
        grid: Of the scan.
        path: Is written directly.
        labels: What its values mean, for extensions of the header.
    """
    header = nifti_header.for_mask(grid, mask)
    extensions = nifti_extensions(labels) if labels else b""
    header["vox_offset"] = header.sizeof_hdr + 4 + len(extensions)
    # the first of these four bytes announces extensions
    start = header.binaryblock + bytes([bool(extensions), 0, 0, 0]) + extensions
    stored = mask.dtype.newbyteorder("<")
    step = slices_per_chunk(mask[0].nbytes)
    with open(path, "wb") as raw:
        with (
            gzip.GzipFile("", "wb", _COMPRESSION, fileobj=raw, mtime=0)
            if grid.ending == ".nii.gz"
            else nullcontext(raw)
        ) as stream:
            stream.write(start)
            for start in range(0, len(mask), step):
                stream.write(np.ascontiguousarray(mask[start : start + step], stored).data)


@contextmanager
def opened(path: Path, ending: str) -> Iterator[IO[bytes]]:
    """The file's content, unpacked if its ending says so; damage becomes a CaseError."""
    try:
        with open(path, "rb") as raw:
            start = raw.read(2)
            raw.seek(0)
            if not start:
                raise CaseError(f"{path}: is empty (0 bytes); copy it again")
            if start == b"\x1f\x8b" and ending == ".nii":
                raise CaseError(f"{path}: is packed with gzip; its name must end in .nii.gz")
            if start != b"\x1f\x8b" and ending == ".nii.gz":
                raise CaseError(f"{path}: is not packed with gzip; its name must not end in .gz")
            with gzip.GzipFile(fileobj=raw) if ending == ".nii.gz" else nullcontext(raw) as stream:
                yield stream  # type: ignore[misc]
    except EOFError as err:
        raise CaseError(f"{path}: is cut off: its gzip data have no end; copy it again") from err
    except (zlib.error, gzip.BadGzipFile) as err:
        raise CaseError(f"{path}: its gzip data are damaged ({err}); copy it again") from err
    except OSError as err:
        raise CaseError(f"{path}: cannot be read: {err.strerror or err}") from err


def _chunks(
    stream: IO[bytes], grid: Grid, stored: np.dtype[Any], name: str
) -> Iterator[NDArray[Any]]:
    """The stored values of the next volume, some slices at a time."""
    z, y, x = grid.shape_zyx
    slice_bytes = y * x * stored.itemsize
    step = slices_per_chunk(y * x * 8)  # as float64, if they are scaled
    for start in range(0, z, step):
        count = min(step, z - start)
        content = stream.read(count * slice_bytes)
        if len(content) < count * slice_bytes:
            missing = (z - start) * slice_bytes - len(content)
            raise CaseError(f"{name}: is cut off: {missing} bytes of its voxels are missing")
        yield np.frombuffer(content, stored).reshape(count, y, x)
