"""The slices of a series that an object made from it refers to: headers in the order of the files."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError, Scan

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


def series_place(scan: Scan) -> str:
    """The archive or folder of a series, for messages."""
    return scan.archive or str(Path(scan.files[0]).parent)


def read_headers(scan: Scan) -> list[Any]:
    """The slices' headers without pixels, in the order of the files; the first one in full.

    Raises:
        CaseError: A file that is not there or no DICOM.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    with contextlib.ExitStack() as stack:
        files = [Path(file) for file in scan.files]
        if scan.archive is not None:
            from dinomed3d.runtime.safe_zip import extract

            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dinomed3d-"))
            files = extract(Path(scan.archive), scan.files, Path(folder))
        headers = []
        for k, file in enumerate(files):
            tags = _READ if k else None
            try:  # force: files without the preamble of part 10 are still DICOM
                header = dcmread(file, stop_before_pixels=True, specific_tags=tags, force=True)
            except (OSError, EOFError, InvalidDicomError) as err:
                raise CaseError(f"{file}: cannot be read as DICOM: {err}") from err
            headers.append(header)
    return headers


def check_headers(headers: Sequence[Any], scan: Scan, shape: tuple[int, ...]) -> None:
    """Refuse what cannot be referred to, and files that are not in the order of their positions.

    Also fills what DICOM lets be unknown, in memory only, for highdicom insists on it.

    Args:
        headers: Of `read_headers`.
        scan: The series.
        shape: (Z, Y, X) of the mask.

    Raises:
        CaseError: What is wrong, and with which file.
    """
    for file, header in zip(scan.files, headers, strict=True):
        if missing := [tag for tag in _REQUIRED if not header.get(tag)]:
            raise CaseError(
                f"{file}: a DICOM segmentation must refer to the slices it belongs to, and this one "
                f"has no {', '.join(missing)} (taken out by anonymisation?)"
            )
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise CaseError(
                f"{file}: DICOM segmentations are made for series of one slice a file; this file "
                f"holds {header.NumberOfFrames} frames"
            )
    sizes = {(len(headers), int(header.Rows), int(header.Columns)) for header in headers}
    if sizes != {shape}:
        raise CaseError(
            f"{series_place(scan)}: a DICOM segmentation must have the size of its series; "
            f"the mask is {shape}, the series (slices, rows, columns) {sorted(sizes)}"
        )
    if len({str(header.SOPInstanceUID) for header in headers}) < len(headers):
        raise CaseError(f"{series_place(scan)}: two slices have the same SOPInstanceUID")
    _check_order(headers, scan)
    first = headers[0]
    for tag in _MAY_BE_EMPTY:
        if tag not in first:
            setattr(first, tag, "")
    if first.PatientSex not in ("", None, "M", "F", "O"):
        first.PatientSex = ""  # anything else is no value of DICOM: unknown


def _check_order(headers: Sequence[Any], scan: Scan) -> None:
    """Positions must go one way along the normal of the slices."""
    orientations = np.array([h.ImageOrientationPatient for h in headers], dtype=float)
    if np.abs(orientations - orientations[0]).max() > 1e-4:
        raise CaseError(f"{series_place(scan)}: the slices differ in ImageOrientationPatient")
    for header in headers:  # digits behind the fourth may differ, highdicom compares all of them
        header.ImageOrientationPatient = headers[0].ImageOrientationPatient
    steps = np.diff(slice_positions(headers) @ slice_normal(headers[0]))
    if len(steps) and not (steps > 1e-4).all() and not (steps < -1e-4).all():
        k = int(np.argmax(np.sign(steps) != np.sign(steps.sum())))
        one, other = (Path(scan.files[j]).name for j in (k, k + 1))
        raise CaseError(
            f"{series_place(scan)}: slices must follow each other in space; "
            f"{one} and {other} do not ({steps[k]:g} mm)"
        )


def slice_positions(headers: Sequence[Any]) -> NDArray[np.float64]:
    """(Z, 3) of the slices' first voxels, mm, LPS."""
    return np.array([header.ImagePositionPatient for header in headers], dtype=float)


def slice_normal(header: Any) -> NDArray[np.float64]:
    """Across the slices, unit length, LPS."""
    orientation = np.array(header.ImageOrientationPatient, dtype=float)
    return np.cross(orientation[:3], orientation[3:])
