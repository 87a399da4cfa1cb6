"""A DICOM series as one volume: slices sorted by position, pixels decoded by GDCM."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom.frames import read_frames, unpack_frames
from dinomed3d.inference.dicom.header import (
    BrokenDicomError,
    Header,
    pixels_complete,
    read_header,
)
from dinomed3d.inference.dicom.increments import on_even_slices
from dinomed3d.inference.dicom.inverted import is_shown_inverted, not_inverted
from dinomed3d.inference.dicom.quiet import quiet_libraries
from dinomed3d.inference.dicom.series import Series
from dinomed3d.inference.dicom.stack import Stack, plane, stack
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.safe_zip import DAMAGED, extract


def series_scan(series: Series) -> Scan:
    """Sort the slices of a series by position, and check that they make one grid.

    Raises:
        CaseError: A file is cut off, or the slices are not one stack (`stack`).
    """
    for slice_ in series.slices:
        if not slice_.header.pixels_at or slice_.header.missing_bytes:
            raise CaseError(
                f"{series.label}: {slice_.name} is cut off within its pixels; copy the series again"
            )
    headers, names = zip(*((one.header, one.name) for one in series.slices), strict=True)
    order = _stack(headers, names, series.label).order
    frames = tuple(series.slices[i].frame for i in order) if series.slices[0].frame else ()
    paths = [series.slices[i].path for i in order]
    if frames and len(set(paths)) > 1:
        raise CaseError(f"{series.label}: its frames lie in several files; give each file alone")
    return Scan(
        files=tuple(paths[:1] if frames else paths),
        frames=frames,
        ending=".dcm",
        archive=series.archive,
        series=series.label,
        uid=series.uid,
    )


def _stack(headers: Sequence[Header], names: Sequence[str], label: str) -> Stack:
    try:
        return stack([plane(h, name) for h, name in zip(headers, names, strict=True)])
    except CaseError as err:
        raise CaseError(f"{label}: {err}") from err


def read_series(scan: Scan) -> tuple[NDArray[Any], Stack]:
    """Read the voxels of a series and its grid.

    Args:
        scan: Of `series_scan`. Members of an archive are unpacked to a temporary folder meanwhile.

    Returns:
        (Z, Y, X) with slope and intercept applied, in the smallest of int16, uint16, int32 that
        holds them, or as stored; float32 where the slope makes fractions. Slice z is
        `scan.files[z]`; of two increments the slices are interpolated to even ones. And the grid.

    Raises:
        CaseError: A file is missing, damaged, cut off or changed, or as `series_scan`.
    """
    import SimpleITK  # noqa: F401  # is silenced with the others only once it is there

    with files_on_disk(scan) as paths, quiet_libraries():
        headers = [_complete_header(path) for path in paths]
        found = _same_stack(scan, headers)
        volume = np.empty((0, 0, 0), np.uint8)
        for index, (path, header) in enumerate(zip(paths, headers, strict=True)):
            if is_shown_inverted(header):
                with not_inverted(path) as copy:
                    pixels = _read_pixels(copy, path)
            else:
                pixels = _read_pixels(path, path)
            if pixels.shape != found.shape_zyx[1:]:
                raise CaseError(
                    f"{path.name}: its pixels are {pixels.shape}, not {found.shape_zyx[1:]}"
                )
            if index == 0:
                volume = np.empty((len(paths), *pixels.shape), pixels.dtype)
            wider = np.promote_types(volume.dtype, pixels.dtype)
            if wider != volume.dtype:
                volume = volume.astype(np.float32 if wider.kind == "f" else wider)
            volume[index] = pixels
    if found.places:
        volume = on_even_slices(volume, found.places, found.shape_zyx[0])
    return volume, found


def series_grid(scan: Scan) -> Stack:
    """The grid of a series, from the headers of its files.

    Raises:
        CaseError: As `read_series`, as far as headers tell.
    """
    with quiet_libraries():
        if scan.frames:
            with _stored_files(scan) as paths:
                headers = _headers_of_frames(paths[0], scan.frames)
        elif scan.archive is None:
            headers = [_complete_header(Path(file)) for file in scan.files]
        else:
            headers = _headers_in_archive(scan, scan.archive)
    return _same_stack(scan, headers)


def _headers_in_archive(scan: Scan, path: str) -> list[Header]:
    headers = []
    name = path
    try:
        with zipfile.ZipFile(path) as archive:
            for name in scan.files:
                with archive.open(name) as stream:
                    headers.append(read_header(stream, archive.getinfo(name).file_size))
    except (OSError, KeyError, *DAMAGED) as err:
        raise CaseError(f"archive {path}: {name} cannot be read ({err}); copy it again") from err
    return headers


def _same_stack(scan: Scan, headers: Sequence[Header]) -> Stack:
    """The grid, which must be the one that was found."""
    names = [os.path.basename(file) for file in scan.files]
    if scan.frames:
        names = [f"{names[0]} frame {number}" for number in scan.frames]
    found = _stack(headers, names, scan.series)
    if found.order != tuple(range(len(headers))):
        raise CaseError(f"{scan.series}: its files have changed since they were found")
    return found


def _headers_of_frames(path: Path, numbers: Sequence[int]) -> list[Header]:
    """The headers of frames of a multi-frame file."""
    try:
        with path.open("rb") as stream:
            frames = read_frames(stream, read_header(stream, path.stat().st_size))
        return [frames[number - 1] for number in numbers]
    except OSError as err:
        raise CaseError(f"{path}: cannot be opened: {err.strerror or err}") from err
    except (BrokenDicomError, IndexError) as err:
        raise CaseError(f"{path}: {err}; copy it again") from err


@contextmanager
def files_on_disk(scan: Scan) -> Iterator[list[Path]]:
    """A file for each slice of a scan, for as long as it is read."""
    if not scan.frames:
        with _stored_files(scan) as paths:
            yield paths
        return
    with _stored_files(scan) as (path,), tempfile.TemporaryDirectory(prefix="dinomed3d-") as folder:
        try:
            with path.open("rb") as stream:
                header = read_header(stream, path.stat().st_size)
            slices = unpack_frames(path, header, scan.frames, Path(folder))
        except OSError as err:
            raise CaseError(
                f"{path}: its frames cannot be unpacked: {err.strerror or err}"
            ) from err
        except BrokenDicomError as err:
            raise CaseError(f"{path}: {err}; copy it again") from err
        yield slices


@contextmanager
def _stored_files(scan: Scan) -> Iterator[list[Path]]:
    """The files of a scan on disk."""
    if scan.archive is None:
        yield [Path(file) for file in scan.files]
        return
    with tempfile.TemporaryDirectory(prefix="dinomed3d-") as folder:
        try:
            paths = extract(Path(scan.archive), scan.files, Path(folder))
        except UserError as err:
            raise CaseError(str(err)) from err
        yield paths


def _complete_header(path: Path) -> Header:
    """The header of a file whose pixel data are complete."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            header = read_header(stream, size)
            complete = pixels_complete(stream, size, header)
    except OSError as err:
        raise CaseError(f"{path}: cannot be opened: {err.strerror or err}") from err
    except BrokenDicomError as err:
        raise CaseError(f"{path}: {err}; copy it again") from err
    if not complete:
        raise CaseError(f"{path}: cut off within its pixels; copy it again")
    return header


def _read_pixels(path: Path, name: Path) -> NDArray[Any]:
    """(Y, X) of one slice, rescaled, in a type that is no wider than needed; `name` is for messages."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
    except RuntimeError as err:
        last = str(err).strip().splitlines()[-1]
        raise CaseError(
            f"{name}: its pixels cannot be decoded ({last}); convert it to uncompressed DICOM or .nii.gz"
        ) from err
    pixels = sitk.GetArrayFromImage(image)
    if pixels.shape[0] != 1 or pixels.ndim != 3:
        raise CaseError(f"{name}: {pixels.shape} pixels, one slice of one channel is needed")
    return _narrow(pixels[0])


def _narrow(pixels: NDArray[Any]) -> NDArray[Any]:
    """GDCM is generous: CT often comes as int32, and any fraction as float64."""
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)
    for dtype in (np.int16, np.uint16, np.int32):
        limits = np.iinfo(dtype)
        if pixels.dtype.itemsize > limits.dtype.itemsize:
            if limits.min <= pixels.min() and pixels.max() <= limits.max:
                return pixels.astype(dtype)
    return pixels
