"""The slices that a DICOM object made of a mask refers to: their headers, in the order of the files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom.volume import files_on_disk, series_grid

_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID") + (
    *("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient"),
    *("PixelSpacing", "Rows", "Columns"),
)
"""Attributes that every slice must have: without them nothing can be referred to or placed."""
_SAME = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
"""What all slices must share: an object refers to one study and series, and lies in one frame of reference."""
_OF_FRAMES = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_READ = [*_REQUIRED, "SliceThickness", "SpecificCharacterSet"]
_MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex") + (
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""DICOM's type 2: the attribute must be there, its value may be unknown."""
_DATES, _TIMES = ("PatientBirthDate", "StudyDate"), ("StudyTime",)


def series_path(scan: Scan) -> str:
    """The archive or folder of a series, for messages."""
    return scan.archive or str(Path(scan.files[0]).parent)


def read_references(scan: Scan, shape: tuple[int, ...]) -> list[Any]:
    """The slices' headers without pixels, in the order of the files; the first one in full.

    Of a multi-frame object each frame is a header with the attributes `multi_frame`, the whole object, and
    `frame`, its number. What highdicom takes from its source is adapted in memory: type 2 attributes that are absent
    or have values that DICOM does not allow become unknown; all slices get the first one's orientation, from which they
    differ by rounding only; and the first one, or the whole object, has the measures that follow from positions.

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
    for tag in _SAME:
        if len({str(header[tag].value) for header in headers}) > 1:
            raise CaseError(
                f"{series_path(scan)}: a DICOM segmentation or structure set refers to one series, and its slices "
                f"have different {tag}s (changed by anonymisation?)"
            )
    for header in headers:
        header.ImageOrientationPatient = first.ImageOrientationPatient
    _complete(first)
    measures = pixel_measures(headers)
    for tag in ("SliceThickness", "SpacingBetweenSlices"):
        first.pop(tag, None)
        if tag in measures:
            first[tag] = measures[tag]
    return headers


def slice_positions(headers: Sequence[Any]) -> NDArray[np.float64]:
    """(Z, 3) of the slices' first voxels, mm, LPS."""
    return np.array([header.ImagePositionPatient for header in headers], dtype=float)


def pixel_measures(headers: Sequence[Any]) -> Any:
    """Pixel measures: spacing of rows and columns as stated, of slices from their positions where it is one.

    What headers say of the distance of slices need not be it: some hold the gap between them, and others are of a
    series of which every second slice was exported.
    """
    from pydicom import Dataset

    gaps = np.linalg.norm(np.diff(slice_positions(headers), axis=0), axis=1)
    gap = round(float(gaps.mean()), 6) if len(gaps) else None
    measures = Dataset()
    measures.PixelSpacing = headers[0].PixelSpacing
    if thickness := headers[0].get("SliceThickness") or gap:
        measures.SliceThickness = thickness
    if gap is not None and float(np.ptp(gaps)) <= 0.1 * gap:  # not of two increments
        measures.SpacingBetweenSlices = gap
    return measures


def valid_date(text: str) -> str:
    """DICOM's YYYYMMDD of a date, also of the former YYYY.MM.DD; empty for what is no date."""
    found = re.fullmatch(r"(\d{4})(\.?)(\d\d)\2(\d\d)", text.strip())
    try:
        return "" if found is None else f"{date(*map(int, found.group(1, 3, 4))):%Y%m%d}"
    except ValueError:
        return ""


def valid_time(text: str) -> str:
    """DICOM's HHMMSS.FFFFFF of a time or its beginning, also of the former HH:MM:SS; empty for what is no time."""
    found = re.fullmatch(
        r"([01]\d|2[0-3])(:?)(?:([0-5]\d)(?:\2([0-5]\d|60)(\.\d{1,6})?)?)?", text.strip()
    )
    return "" if found is None else "".join(part or "" for part in found.group(1, 3, 4, 5))


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
    """Type 2 attributes that are absent, or have a value that DICOM does not allow, become unknown."""
    for tag in _MAY_BE_EMPTY:
        if tag not in first:
            setattr(first, tag, "")
    for tags, valid in ((_DATES, valid_date), (_TIMES, valid_time)):
        for tag in tags:
            setattr(first, tag, valid(str(first[tag].value or "")))
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
    _share_groups(whole, headers)
    return headers


def _share_groups(whole: Any, headers: Sequence[Any]) -> None:
    """Orientation and measures, which all frames have, where highdicom looks for them: in the shared groups."""
    from pydicom import Dataset

    if not whole.get("SharedFunctionalGroupsSequence"):
        whole.SharedFunctionalGroupsSequence = [Dataset()]
    shared, orientation = whole.SharedFunctionalGroupsSequence[0], Dataset()
    orientation.ImageOrientationPatient = headers[0].ImageOrientationPatient
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelMeasuresSequence = [pixel_measures(headers)]
