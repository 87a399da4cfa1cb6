"""DICOM series put in order by the position of their slices, and read as one volume."""

from __future__ import annotations

import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom import tags
from dinomed3d.inference.dicom.series import (
    Found,
    Series,
    SliceFile,
    find_series,
    find_series_in_archive,
)
from dinomed3d.inference.dicom.stack import Stack, plane, stack
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.safe_zip import DAMAGED

__all__ = [
    "Found",
    "Series",
    "SliceFile",
    "find_series",
    "find_series_in_archive",
    "read_series",
    "series_grid",
    "series_scan",
]


def series_scan(series: Series) -> Scan:
    """Put the slices in order by their position, and check that they make one grid.

    Raises:
        CaseError: A file is cut off; as `dicom_stack.stack`.
    """
    for slice_ in series.slices:
        if not slice_.tags.has_pixels or slice_.tags.missing_bytes:
            raise CaseError(
                f"{series.words}: {slice_.name} is cut off within its pixels; copy the series again"
            )
    stacked = _stack(
        [slice_.tags.values for slice_ in series.slices],
        [slice_.name for slice_ in series.slices],
        series.words,
    )
    return Scan(
        files=tuple(series.slices[i].path for i in stacked.order),
        ending=".dcm",
        archive=series.archive,
        series=series.words,
        uid=series.uid,
    )


def _stack(values: Sequence[Mapping[str, str]], names: Sequence[str], words: str) -> Stack:
    try:
        return stack([plane(v, name) for v, name in zip(values, names, strict=True)])
    except CaseError as err:
        raise CaseError(f"{words}: {err}") from err


def read_series(
    scan: Scan,
) -> tuple[NDArray[Any], tuple[float, float, float], NDArray[np.float64], tuple[str, ...]]:
    """Read the voxels of a series and where they lie.

    Args:
        scan: Of `series_scan`. Members of an archive are unpacked to a temporary folder meanwhile.

    Returns:
        (Z, Y, X) with slope and intercept applied, in the smallest of int16, uint16, int32 that
        holds them, or what is stored; float32 where the slope makes fractions. Slice z is
        `scan.files[z]`. Spacing (z, y, x) in mm. (4, 4) affine: voxel (x, y, z) -> mm, RAS+. Notes.

    Raises:
        CaseError: A file is gone, damaged, cut off or changed, or as `series_scan`.
    """
    with _on_disk(scan) as paths, _quiet():
        shape, stacked = _same_stack(scan, [_whole_tags(path) for path in paths])
        volume = np.empty((0, 0, 0), np.uint8)
        for index, path in enumerate(paths):
            pixels = _read_pixels(path)
            if pixels.shape != shape:
                raise CaseError(f"{path.name}: its pixels are {pixels.shape}, not {shape}")
            if index == 0:
                volume = np.empty((len(paths), *shape), pixels.dtype)
            wider = np.promote_types(volume.dtype, pixels.dtype)
            if wider != volume.dtype:
                volume = volume.astype(np.float32 if wider.kind == "f" else wider)
            volume[index] = pixels
    return volume, stacked.spacing_zyx, stacked.affine, stacked.notes


def series_grid(
    scan: Scan,
) -> tuple[tuple[int, int, int], tuple[float, float, float], NDArray[np.float64], tuple[str, ...]]:
    """Where the voxels of a series lie, from the heads of its files.

    Returns:
        Shape (Z, Y, X); and spacing, affine and notes as of `read_series`.

    Raises:
        CaseError: As `read_series`, as far as headers tell.
    """
    if scan.archive is None:
        heads = [_whole_tags(Path(file)) for file in scan.files]
    else:
        heads = _heads_in_archive(scan, scan.archive)
    (y, x), stacked = _same_stack(scan, heads)
    return (len(heads), y, x), stacked.spacing_zyx, stacked.affine, stacked.notes


def _heads_in_archive(scan: Scan, path: str) -> list[tags.Tags]:
    heads = []
    name = path
    try:
        with zipfile.ZipFile(path) as archive:
            for name in scan.files:
                with archive.open(name) as stream:
                    heads.append(tags.read_tags(stream, archive.getinfo(name).file_size))
    except (OSError, KeyError, *DAMAGED) as err:
        raise CaseError(f"archive {path}: {name} cannot be read ({err}); copy it again") from err
    return heads


def _same_stack(scan: Scan, heads: Sequence[tags.Tags]) -> tuple[tuple[int, int], Stack]:
    """(Y, X) and the stack, which must be the one that was found."""
    names = [file.replace("\\", "/").rsplit("/", 1)[-1] for file in scan.files]
    stacked = _stack([head.values for head in heads], names, scan.series)
    if stacked.order != tuple(range(len(heads))):
        raise CaseError(f"{scan.series}: its files have changed since they were found")
    return (int(heads[0].get(tags.ROWS)), int(heads[0].get(tags.COLUMNS))), stacked


@contextmanager
def _on_disk(scan: Scan) -> Iterator[list[Path]]:
    """The files of a scan as such, for as long as it is read."""
    if scan.archive is None:
        yield [Path(file) for file in scan.files]
        return
    from dinomed3d.runtime.safe_zip import extract

    with tempfile.TemporaryDirectory(prefix="dinomed3d-") as folder:
        try:
            paths = extract(Path(scan.archive), scan.files, Path(folder))
        except UserError as err:
            raise CaseError(str(err)) from err
        yield paths


def _whole_tags(path: Path) -> tags.Tags:
    """Its tags, after a look whether the pixels are all there."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            content = tags.read_tags(stream, size)
            whole = tags.is_whole(stream, size, content)
    except OSError as err:
        raise CaseError(f"{path}: cannot be opened: {err.strerror or err}") from err
    except tags.BrokenDicomError as err:
        raise CaseError(f"{path}: {err}; copy it again") from err
    if not whole:
        raise CaseError(f"{path}: cut off within its pixels; copy it again")
    return content


def _read_pixels(path: Path) -> NDArray[Any]:
    """(Y, X) of one slice, rescaled, in a type that is no wider than needed."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
    except RuntimeError as err:
        last = str(err).strip().splitlines()[-1]
        raise CaseError(
            f"{path}: its pixels cannot be decoded ({last}); convert it to uncompressed DICOM or .nii.gz"
        ) from err
    pixels = sitk.GetArrayFromImage(image)
    if pixels.shape[0] != 1 or pixels.ndim != 3:
        raise CaseError(f"{path}: {pixels.shape} pixels, one slice of one channel is needed")
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


_quiet_lock = threading.Lock()
_quiet_depth = 0
_shown = [True]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without ITK's warnings on stderr, in any number of threads; errors are raised all the same."""
    import SimpleITK as sitk

    global _quiet_depth
    with _quiet_lock:
        if _quiet_depth == 0:
            _shown[0] = sitk.ProcessObject.GetGlobalWarningDisplay()
            sitk.ProcessObject.SetGlobalWarningDisplay(False)
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                sitk.ProcessObject.SetGlobalWarningDisplay(_shown[0])
