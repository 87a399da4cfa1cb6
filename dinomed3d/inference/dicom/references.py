"""The slices that a DICOM object made of a mask refers to: their headers, in the order of the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom.volume import files_on_disk, series_grid

_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID") + (
    *("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient"),
    *("PixelSpacing", "Rows", "Columns"),
)
"""Attributes that every slice must have: without them nothing can be referred to or placed."""
_OF_FRAMES = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_READ = [*_REQUIRED, "SliceThickness", "SpecificCharacterSet"]
_MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex") + (
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""DICOM's type 2: the attribute must be there, its value may be unknown."""


def series_path(scan: Scan) -> str:
    """The archive or folder of a series, for messages."""
    return scan.archive or str(Path(scan.files[0]).parent)


def read_references(scan: Scan, shape: tuple[int, ...]) -> list[Any]:
    """The slices' headers without pixels, in the order of the files; the first one in full.

    Of a multi-frame object each frame is a header with the attributes `multi_frame`, the whole object, and
    `frame`, its number. What highdicom needs is adapted in memory: type 2 attributes that are absent become
    unknown, and all slices get the first one's orientation, from which they differ by rounding only.

    Args:
        scan: The series.
        shape: (Z, Y, X) of the mask.

    Raises:
        CaseError: As `series_grid`; a file cannot be referred to, or the mask has another size.
    """
    found = (len(scan.frames or scan.files), *series_grid(scan).shape_zyx[1:])
    if found != shape:
        raise CaseError(
            f"{series_path(scan)}: a DICOM segmentation or structure set must have the size of its series; "
            f"the mask is {shape}, the series (slices, rows, columns) {found}"
        )
    if scan.frames:
        return _frames(scan)
    headers: list[Any] = []
    with files_on_disk(scan) as paths:
        for path in paths:
            header = _read(path, _READ if headers else None)
            _require(header, _REQUIRED, path)
            headers.append(header)
    first = headers[0]
    if len({str(header.SOPInstanceUID) for header in headers}) < len(headers):
        raise CaseError(f"{series_path(scan)}: two slices have the same SOPInstanceUID")
    for header in headers:
        header.ImageOrientationPatient = first.ImageOrientationPatient
    _complete(first)
    return headers


def _read(path: Path, tags: list[str] | None) -> Any:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:  # force: files without the preamble of part 10 are still DICOM
        return dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
    except (OSError, EOFError, InvalidDicomError) as err:
        raise CaseError(f"{path}: cannot be read as DICOM: {err}") from err


def _require(header: Any, tags: Sequence[str], path: Path) -> None:
    if missing := [tag for tag in tags if not header.get(tag)]:
        raise CaseError(
            f"{path}: a DICOM segmentation or structure set must refer to the slices it belongs to, "
            f"and this one has no {', '.join(missing)} (removed by anonymisation?)"
        )


def _complete(first: Any) -> None:
    """Type 2 attributes that are absent become unknown."""
    for tag in _MAY_BE_EMPTY:
        if tag not in first:
            setattr(first, tag, "")
    if first.PatientSex not in ("", None, "M", "F", "O"):
        first.PatientSex = ""  # not a value that DICOM defines: unknown


def _frames(scan: Scan) -> list[Any]:
    """The frames of a multi-frame object, in the order of the slices; all of them, as highdicom needs."""
    with files_on_disk(replace(scan, frames=())) as (path,):
        whole = _read(path, None)
    _require(whole, [tag for tag in _REQUIRED if tag not in _OF_FRAMES], path)
    if sorted(scan.frames) != list(range(1, int(whole.NumberOfFrames) + 1)):
        raise CaseError(
            f"{path}: it must be one volume for a DICOM segmentation or structure set, this object holds "
            "several; convert the NIfTI mask, or split the object before"
        )
    _complete(whole)
    from pydicom import Dataset

    headers: list[Any] = []
    with files_on_disk(scan) as paths:
        for number, slice_path in zip(scan.frames, paths, strict=True):
            header = Dataset() if headers else Dataset(whole)
            of_frame = _read(slice_path, [*_OF_FRAMES, "SliceThickness"])
            header.SOPInstanceUID = whole.SOPInstanceUID
            for element in of_frame:
                header[element.tag] = element
            header.multi_frame, header.frame = whole, number
            headers.append(header)
    return headers
