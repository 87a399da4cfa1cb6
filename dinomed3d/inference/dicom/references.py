"""The slices that a DICOM segmentation refers to: their headers, checked, in the order of the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom.volume import files_on_disk

_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID") + (
    *("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient"),
    *("PixelSpacing", "Rows", "Columns"),
)
"""Of every slice: without them nothing can be referred to or placed."""
_READ = [*_REQUIRED, "NumberOfFrames", "SliceThickness", "SpecificCharacterSet"]
_MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex") + (
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""DICOM's type 2: the attribute must be there, its value may be unknown."""


def series_path(scan: Scan) -> str:
    """The archive or folder of a series, for messages."""
    return scan.archive or str(Path(scan.files[0]).parent)


def read_references(scan: Scan, shape: tuple[int, ...]) -> list[Any]:
    """The slices' headers without pixels, in the order of the files; the first one in full.

    Type 2 attributes that are absent are filled in as unknown, in memory only: highdicom needs them.

    Args:
        scan: The series.
        shape: (Z, Y, X) of the mask.

    Raises:
        CaseError: A file cannot be read or referred to, the mask has another size, or the files are
            not in the order of their positions.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    headers: list[Any] = []
    with files_on_disk(scan) as paths:
        for path in paths:
            tags = _READ if headers else None
            try:  # force: files without the preamble of part 10 are still DICOM
                header = dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
            except (OSError, EOFError, InvalidDicomError) as err:
                raise CaseError(f"{path}: cannot be read as DICOM: {err}") from err
            headers.append(header)
    for file, header in zip(scan.files, headers, strict=True):
        _check_header(header, file)
    sizes = {(len(headers), int(header.Rows), int(header.Columns)) for header in headers}
    if sizes != {shape}:
        raise CaseError(
            f"{series_path(scan)}: a DICOM segmentation must have the size of its series; "
            f"the mask is {shape}, the series (slices, rows, columns) {sorted(sizes)}"
        )
    if len({str(header.SOPInstanceUID) for header in headers}) < len(headers):
        raise CaseError(f"{series_path(scan)}: two slices have the same SOPInstanceUID")
    _check_order(headers, scan)
    first = headers[0]
    for tag in _MAY_BE_EMPTY:
        if tag not in first:
            setattr(first, tag, "")
    if first.PatientSex not in ("", None, "M", "F", "O"):
        first.PatientSex = ""  # not a value that DICOM defines: unknown
    return headers


def _check_header(header: Any, file: str) -> None:
    if missing := [tag for tag in _REQUIRED if not header.get(tag)]:
        raise CaseError(
            f"{file}: a DICOM segmentation must refer to the slices it belongs to, and this one "
            f"has no {', '.join(missing)} (removed by anonymisation?)"
        )
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise CaseError(
            f"{file}: DICOM segmentations are made for series of one slice per file; this file "
            f"holds {header.NumberOfFrames} frames"
        )


def _check_order(headers: Sequence[Any], scan: Scan) -> None:
    """Positions must go one way along the normal of the slices."""
    orientations = np.array([h.ImageOrientationPatient for h in headers], dtype=float)
    if np.abs(orientations - orientations[0]).max() > 1e-4:
        raise CaseError(f"{series_path(scan)}: the slices differ in ImageOrientationPatient")
    for header in headers:  # digits behind the fourth may differ, highdicom compares all of them
        header.ImageOrientationPatient = headers[0].ImageOrientationPatient
    steps = np.diff(slice_positions(headers) @ slice_normal(headers[0]))
    if len(steps) and not (steps > 1e-4).all() and not (steps < -1e-4).all():
        k = int(np.argmax(np.sign(steps) != np.sign(steps.sum())))
        one, other = (Path(scan.files[j]).name for j in (k, k + 1))
        raise CaseError(
            f"{series_path(scan)}: slices must follow each other in space; "
            f"{one} and {other} do not ({steps[k]:g} mm)"
        )


def slice_positions(headers: Sequence[Any]) -> NDArray[np.float64]:
    """(Z, 3) of the slices' first voxels, mm, LPS."""
    return np.array([header.ImagePositionPatient for header in headers], dtype=float)


def slice_normal(header: Any) -> NDArray[np.float64]:
    """(3,) unit vector across the slices, LPS."""
    orientation = np.array(header.ImageOrientationPatient, dtype=float)
    return np.cross(orientation[:3], orientation[3:])
