"""A mask as a DICOM RT Structure Set (RTSTRUCT) that refers to the series it was made from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom.contours import filled, plane_contours
from dinomed3d.inference.dicom.derived import (
    MadeBy,
    character_set,
    derived_uid,
    library_errors,
    made_at,
    series_number,
)
from dinomed3d.inference.dicom.references import read_references
from dinomed3d.inference.dicom.segments import belonging, foreground_labels, labels_with_voxels
from dinomed3d.inference.palette import rgb
from dinomed3d.runtime.files.atomic_files import new_file

_STUDY_COMPONENT = "1.2.840.10008.3.1.2.3.1"
"""The class of a study in the list of what a structure set refers to; retired, but expected there."""
_COPIED = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge"),
    *("PatientSize", "PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID"),
    *("AccessionNumber", "StudyDescription"),
)  # fmt: skip
"""Patient and study are those of the series."""
_LONGEST_NUMBER = 16
"""Characters of a decimal string in DICOM."""


def write_structure_set(
    mask: NDArray[np.unsignedinteger[Any]],
    scan: Scan,
    path: Path,
    *,
    labels: Mapping[str, int | Sequence[int]],
    made_by: MadeBy,
) -> list[str]:
    """Write the mask of a DICOM series as a DICOM RT Structure Set, and read it back.

    One ROI for each label that has voxels, in the order of `labels`; regions may overlap. A mask without any voxels
    has all labels without contours. On each slice, every piece is a closed planar contour (`plane_contours`), in
    patient coordinates. What is read back, filled at the centres of voxels, is the mask, or the file is not kept.
    UIDs are derived from the content, so the same call writes the same bytes; dates are as `made_at` says.

    Args:
        mask: (Z, Y, X) uint8 or uint16; mask[z] lies on scan.files[z], rows Y, columns X.
        scan: A DICOM series, its files sorted by position; may be in a zip.
        path: Of the file; it appears once it is complete and checked.
        labels: Name to value, or to the values of a region.
        made_by: What made the mask.

    Returns:
        The labels that were left out, since they have no voxels.

    Raises:
        CaseError: The series cannot be referred to: no UIDs or positions, files out of order, another
            size than the mask; or what was read back differs from the mask.
        UserError: A label's name that DICOM cannot hold.
        ValueError: A mask that is not (Z, Y, X) uint8 or uint16, or has values without a label.
    """
    named = foreground_labels(labels)
    rois = labels_with_voxels(mask, named) or named
    with library_errors(scan, "RT structure set"):
        headers = read_references(scan, mask.shape)
        planes = [_Plane.of(*pair) for pair in zip(headers, mask, strict=True)]
        content = _build(mask, headers, rois, list(named), made_by)
        tables = belonging(rois, mask.dtype)
        for item, table in zip(content.ROIContourSequence, tables, strict=True):
            contours = list(_contours(mask, table, headers, planes))
            if contours:
                item.ContourSequence = contours
        with new_file(path) as part:
            content.save_as(part, enforce_file_format=True)
            del content
            if difference := _difference(part, mask, headers, planes, rois):
                raise CaseError(
                    f"{path}: the RT structure set differs when read back: {difference}"
                )
    return [name for name in named if name not in rois]


@dataclass(frozen=True)
class _Plane:
    """Where the voxels of a slice lie, mm, LPS, and which values they have."""

    corner: NDArray[np.float64]
    """(3,) centre of the first voxel."""
    axes: NDArray[np.float64]
    """(2, 3) from one column to the next, and from one row to the next."""
    decimals: int
    """Digits of a coordinate behind the point: a thousandth of a voxel or less."""
    values: NDArray[np.intp]
    """Values of the mask on it."""

    @classmethod
    def of(cls, header: Any, labels: NDArray[Any]) -> _Plane:
        row, column = np.reshape(np.array(header.ImageOrientationPatient, dtype=float), (2, 3))
        down, right = (float(v) for v in header.PixelSpacing)
        axes = np.stack([row / np.linalg.norm(row) * right, column / np.linalg.norm(column) * down])
        decimals = max(3, 3 + math.ceil(-math.log10(min(down, right))))
        corner = np.array(header.ImagePositionPatient, dtype=float)
        return cls(corner, axes, decimals, np.flatnonzero(np.bincount(labels.ravel())))

    def text(self, points: NDArray[np.float64]) -> bytes:
        """Points (N, 2) in voxels as DICOM's decimal strings x, y, z, ..., mm."""
        places = np.round(self.corner + points @ self.axes, self.decimals) + 0.0  # no negative zero
        numbers = [f"{value:.{self.decimals}f}" for value in places.ravel()]
        if max(map(len, numbers)) > _LONGEST_NUMBER:
            raise ValueError(
                f"coordinates such as {max(numbers, key=len)} mm are too long for DICOM"
            )
        text = "\\".join(numbers).encode("ascii")
        return text + b" " * (len(text) % 2)

    def points(self, text: bytes) -> NDArray[np.float64]:
        """The other way round."""
        places = np.array(text.split(b"\\"), dtype=float).reshape(-1, 3) - self.corner
        return places @ (self.axes / np.sum(self.axes**2, axis=1, keepdims=True)).T

    def distance(self, text: bytes) -> float:
        """How far the farthest of the points lies off the plane, mm."""
        places = np.array(text.split(b"\\"), dtype=float).reshape(-1, 3) - self.corner
        normal = np.cross(*self.axes)
        return float(np.abs(places @ (normal / np.linalg.norm(normal))).max())


def _build(
    mask: NDArray[Any],
    headers: Sequence[Any],
    rois: Mapping[str, tuple[int, ...]],
    names: Sequence[str],
    made_by: MadeBy,
) -> Any:
    """The structure set without contours."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

    first = headers[0]
    digest = hashlib.sha256(np.ascontiguousarray(mask).data).hexdigest()
    series_uid = derived_uid(
        first.SeriesInstanceUID, made_by.algorithm, made_by.version, "structure set"
    )
    sources = [str(header.SOPInstanceUID) for header in headers]
    content = Dataset()
    if (used := character_set(first, *names, made_by.algorithm, made_by.version)) is not None:
        content.SpecificCharacterSet = used
    for keyword in _COPIED:
        if keyword in first:
            content[keyword] = first[keyword]
    content.SOPClassUID = RTStructureSetStorage
    content.SOPInstanceUID = derived_uid(
        series_uid, *sources, mask.shape, digest, dict(rois), made_by.corrected or False
    )
    content.Modality, content.OperatorsName = "RTSTRUCT", ""
    content.SeriesInstanceUID, content.SeriesNumber = series_uid, series_number(first, 2000)
    content.SeriesDescription, content.InstanceNumber = "Structure set (dinomed3d)", 1
    content.SeriesDate, content.SeriesTime = made_at(first, made_by)
    content.Manufacturer, content.ManufacturerModelName = "dinomed3d", made_by.algorithm
    content.SoftwareVersions = made_by.version
    content.FrameOfReferenceUID = first.FrameOfReferenceUID
    content.PositionReferenceIndicator = first.get("PositionReferenceIndicator") or ""
    content.StructureSetLabel, content.StructureSetName = "dinomed3d", made_by.algorithm
    content.StructureSetDescription = made_by.description
    content.StructureSetDate, content.StructureSetTime = made_at(first, made_by)
    content.ApprovalStatus = "UNAPPROVED"
    content.ReferencedFrameOfReferenceSequence = [_frame_of_reference(headers)]
    described = [
        _roi(k, name, names.index(name), first, made_by) for k, name in enumerate(rois, start=1)
    ]
    content.StructureSetROISequence = [roi for roi, _, _ in described]
    content.ROIContourSequence = [contour for _, contour, _ in described]
    content.RTROIObservationsSequence = [observation for _, _, observation in described]
    content.file_meta = FileMetaDataset()
    # where types are explicit, the coordinates of a contour may take 65534 bytes at most
    content.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    content.file_meta.MediaStorageSOPClassUID = content.SOPClassUID
    content.file_meta.MediaStorageSOPInstanceUID = content.SOPInstanceUID
    return content


def _frame_of_reference(headers: Sequence[Any]) -> Any:
    """The series and all its images, in whose coordinates contours are."""
    from pydicom.dataset import Dataset

    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = headers[0].SeriesInstanceUID
    whole = getattr(headers[0], "multi_frame", None)
    images = headers if whole is None else headers[:1]
    series.ContourImageSequence = [_image(header, None, headers[0]) for header in images]
    study.ReferencedSOPClassUID = _STUDY_COMPONENT
    study.ReferencedSOPInstanceUID = headers[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = headers[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _image(header: Any, frame: int | None, first: Any) -> Any:
    """A reference to an image, or to a frame of one."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = header.get("SOPClassUID") or first.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if frame is not None:
        item.ReferencedFrameNumber = frame
    return item


def _roi(number: int, name: str, colour: int, first: Any, made_by: MadeBy) -> tuple[Any, Any, Any]:
    """One region: its definition, its contours' colour, and its observation."""
    from pydicom.dataset import Dataset

    roi, contour, observation = Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ROIName = number, name
    roi.ReferencedFrameOfReferenceUID = first.FrameOfReferenceUID
    roi.ROIGenerationAlgorithm = "SEMIAUTOMATIC" if made_by.corrected else "AUTOMATIC"
    roi.ROIGenerationDescription = made_by.algorithm
    contour.ROIDisplayColor = list(rgb(colour + 1))
    contour.ReferencedROINumber = number
    observation.ObservationNumber = observation.ReferencedROINumber = number
    # what a label is (an organ, a target) the model does not say; whoever plans does
    observation.RTROIInterpretedType = observation.ROIInterpreter = ""
    return roi, contour, observation


def _contours(
    mask: NDArray[Any], table: NDArray[np.uint8], headers: Sequence[Any], planes: Sequence[_Plane]
) -> Iterator[Any]:
    """The contours of one region, slice by slice."""
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

    number = 0
    for values, header, plane in zip(mask, headers, planes, strict=True):
        if not table[plane.values].any():
            continue
        image = _image(header, getattr(header, "frame", None), headers[0])
        for points in plane_contours(table[values].astype(bool)):
            number += 1
            item = Dataset()
            item.ContourImageSequence = [image]
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(points)
            item.ContourNumber = number
            # as bytes, whose type this transfer syntax does not write: pydicom's decimal strings are objects, which
            # take a hundred times the memory and a minute for a large mask
            item.add(DataElement("ContourData", "OB", plane.text(points)))
            yield item


def _difference(
    part: Path,
    mask: NDArray[Any],
    headers: Sequence[Any],
    planes: Sequence[_Plane],
    rois: Mapping[str, tuple[int, ...]],
) -> str | None:
    """Compare the file with the mask voxel by voxel; None if they are the same."""
    from pydicom import dcmread

    content = dcmread(part)
    found = [str(item.ROIName) for item in content.StructureSetROISequence]
    if found != list(rois):
        return f"regions {found} instead of {list(rois)}"
    place = {
        (str(header.SOPInstanceUID), getattr(header, "frame", 0)): z
        for z, header in enumerate(headers)
    }
    tables = belonging(rois, mask.dtype)
    for name, item, table in zip(found, content.ROIContourSequence, tables, strict=True):
        polygons: dict[int, list[NDArray[np.float64]]] = {}
        for contour in item.get("ContourSequence", ()):
            image = contour.ContourImageSequence[0]
            frame = int(image.get("ReferencedFrameNumber") or 0)
            z = place[str(image.ReferencedSOPInstanceUID), frame]
            text = contour.get_item("ContourData").value
            if planes[z].distance(text) > 10.0 ** (1 - planes[z].decimals):
                return f"a contour of {name!r} lies off slice {z}"
            polygons.setdefault(z, []).append(planes[z].points(text))
        for z, (values, plane) in enumerate(zip(mask, planes, strict=True)):
            if z not in polygons and not table[plane.values].any():
                continue
            again = filled(polygons.get(z, []), (values.shape[0], values.shape[1]))
            if again is None or not np.array_equal(again, table[values].astype(bool)):
                return f"{name!r} on slice {z}"
    return None
