"""NIfTI files, read and written as streams: one copy of the volume in memory, never float64."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io import nifti_header
from dinomed3d.inference.io.grid import Grid, Volume, shape_zyx
from dinomed3d.inference.io.voxels import CHUNK_BYTES, Watch, kept_type, planes_at_once

_LONGEST_HEADER = 540
_MOST_DEFLATE = 1040  # deflate makes a byte of at most 1032
_TAIL_BYTES = 64 * 2**20
_COMPRESSION = 3  # of masks: as fast as level 1 and a fifth smaller; level 6 takes twice as long


def read_grid(path: Path, ending: str, *, channels: int = 1) -> Grid:
    """The grid of a mask for this file; reads its header alone.

    Raises:
        CaseError: It is not there, not this format, or its header cannot place a mask.
    """
    with _opened(path, ending) as stream:
        header = nifti_header.parse(_head(stream), str(path))
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
    with _opened(path, ending) as stream:
        head = _head(stream)
        header = nifti_header.parse(head, name)
        grid, notes = nifti_header.grid_of(header, name, ending, channels=channels)
        stored = nifti_header.stored_type(header, name)
        scale = nifti_header.slope_intercept(header, name)
        kept = kept_type(stored, name, scaled=scale is not None)
        needed = int(header["vox_offset"]) + channels * math.prod(grid.shape_zyx) * stored.itemsize
        size = path.stat().st_size * (_MOST_DEFLATE if ending == ".nii.gz" else 1)
        if size < needed:
            raise CaseError(f"{name}: is cut off: its header wants {needed} bytes, it has {size}")
        _skip(stream, int(header["vox_offset"]) - len(head), name)
        watch = Watch()
        volumes = []
        for _ in range(channels):
            volumes.append(np.empty(shape_zyx(grid.stored_shape), kept))
            _fill(volumes[-1], stream, stored, scale, watch, name)
        notes += watch.notes(name)
        if ending == ".nii.gz":
            notes += _tail_notes(stream)
    return Volume(channels=volumes, grid=grid, notes=notes)


def write(mask: NDArray[Any], grid: Grid, path: Path) -> None:
    """A mask with the geometry of its scan; equal masks give equal bytes.

    Args:
        mask: (Z, Y, X) uint8 or uint16.
        grid: Where it lies.
        path: Is written directly.
    """
    header = nifti_header.for_mask(grid, mask)
    stored = mask.dtype.newbyteorder("<")
    with open(path, "wb") as raw:
        packed = grid.ending == ".nii.gz"
        stream: IO[bytes] = (
            gzip.GzipFile("", "wb", _COMPRESSION, fileobj=raw, mtime=0) if packed else raw  # type: ignore[assignment]
        )
        try:
            stream.write(header.binaryblock + bytes(4))  # four zeros: no extensions
            step = planes_at_once(mask[0].nbytes)
            for start in range(0, len(mask), step):
                stream.write(np.ascontiguousarray(mask[start : start + step], stored).data)
        finally:
            if packed:
                stream.close()


@contextmanager
def _opened(path: Path, ending: str) -> Iterator[IO[bytes]]:
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
            if ending == ".nii":
                yield raw
            else:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield unpacked  # type: ignore[misc]
    except EOFError as err:
        raise CaseError(f"{path}: is cut off: its gzip data have no end; copy it again") from err
    except (zlib.error, gzip.BadGzipFile) as err:
        raise CaseError(f"{path}: its gzip data are damaged ({err}); copy it again") from err
    except OSError as err:
        raise CaseError(f"{path}: cannot be read: {err.strerror or err}") from err


def _head(stream: IO[bytes]) -> bytes:
    head = bytearray(_LONGEST_HEADER)
    return bytes(head[: _read_into(stream, memoryview(head))])


def _read_into(stream: IO[bytes], view: memoryview) -> int:
    """Fill the view as far as the stream goes; how many bytes that were."""
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            break
        done += count
    return done


def _skip(stream: IO[bytes], count: int, name: str) -> None:
    """Move over what lies between header and voxels; back, for the shorter header of NIfTI-1."""
    if count < 0:
        stream.seek(count, 1)
        return
    while count > 0:
        passed = len(stream.read(min(count, CHUNK_BYTES)))
        if not passed:
            raise CaseError(f"{name}: is cut off: it ends before its voxels")
        count -= passed


def _fill(
    out: NDArray[Any],
    stream: IO[bytes],
    stored: np.dtype[Any],
    scale: tuple[float, float] | None,
    watch: Watch,
    name: str,
) -> None:
    """Read one volume, chunk by chunk, straight into `out` where the type stays."""
    plane = math.prod(out.shape[1:])
    step = planes_at_once(plane * max(stored.itemsize, 8 if scale else 0))
    direct = stored == out.dtype and scale is None
    buffer = np.empty(0 if direct else min(step, len(out)) * plane, stored)
    for start in range(0, len(out), step):
        chunk = out[start : start + step]
        raw = chunk if direct else buffer[: chunk.size].reshape(chunk.shape)
        done = _read_into(stream, raw.reshape(-1).view(np.uint8).data)
        if done < raw.nbytes:
            missing = raw.nbytes - done + (out.size - start * plane - chunk.size) * stored.itemsize
            raise CaseError(f"{name}: is cut off: {missing} bytes of its voxels are missing")
        if not direct:
            # float64 chunk by chunk: the values nibabel gives, rounded once
            with np.errstate(over="ignore", invalid="ignore"):  # infinity is counted below
                chunk[...] = raw if scale is None else raw.astype(np.float64) * scale[0] + scale[1]
        watch.see(chunk)


def _tail_notes(stream: IO[bytes]) -> list[str]:
    """Read on to the end of the gzip data, where its checksum is compared."""
    passed = 0
    while passed < _TAIL_BYTES:
        count = len(stream.read(2**20))
        if not count:
            return []
        passed += count
    return ["there are many more bytes than its voxels need; ignored"]
