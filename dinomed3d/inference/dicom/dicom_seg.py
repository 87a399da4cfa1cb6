"""A mask as a DICOM Segmentation object that refers to the series it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom.derived import (
    MadeBy,
    character_set,
    derived_uid,
    library_errors,
    made_at,
    series_number,
)
from dinomed3d.inference.dicom.quiet import quiet_libraries
from dinomed3d.inference.dicom.references import (
    pixel_measures,
    read_references,
    slice_positions,
)
from dinomed3d.inference.dicom.segments import (
    LEFT_OUT,
    belonging,
    describe_segment,
    foreground_labels,
    labels_with_voxels,
)
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import new_file
from dinomed3d.runtime.messages.extras import how_to_install


def write_segmentation(
    mask: NDArray[np.unsignedinteger[Any]],
    scan: Scan,
    path: Path,
    *,
    labels: Mapping[str, int | Sequence[int]],
    made_by: MadeBy,
) -> list[str]:
    """Write the mask of a DICOM series as a DICOM Segmentation object, and read it back.

    One binary segment for each label that has voxels, in the order of `labels`; regions may
    overlap. Frames without voxels are left out; a mask without any has all labels on one empty
    frame each. Patient and study are those of the series; each algorithm gets a series of its own.
    UIDs are derived from the content, so the same call writes the same bytes; dates are as `made_at`
    says. Takes about six times the memory of the mask; where regions overlap
    (8 + regions) times.

    Args:
        mask: (Z, Y, X) uint8 or uint16; mask[z] lies on scan.files[z], rows Y, columns X.
        scan: A DICOM series, its files sorted by position; may be in a zip.
        path: Of the file; it appears once it is complete and checked.
        labels: Name to value, or to the values of a region.
        made_by: What made the mask; stored in each segment.

    Returns:
        Notes for the report: labels that were left out.

    Raises:
        CaseError: The series cannot be referred to: no UIDs or positions, files out of order, another
            size than the mask; or what was read back differs from the mask.
        UserError: highdicom is not installed; a label's name that DICOM cannot hold.
        ValueError: A mask that is not (Z, Y, X) uint8 or uint16, or has values without a label.
    """
    named = foreground_labels(labels)
    present = labels_with_voxels(mask, named)
    segments = present or named  # an object needs segments, even without voxels
    planes = slice(None) if present or scan.frames else slice(0, 1)
    _check_highdicom()
    with library_errors(scan, "DICOM segmentation"):
        headers = read_references(scan, mask.shape)
        content = _build(mask[planes], headers, planes, segments, list(named), made_by)
        with new_file(path) as part:
            content.save_as(part)
            del content
            if difference := _difference(part, mask, headers, segments):
                raise CaseError(
                    f"{path}: the DICOM segmentation differs when read back: {difference}"
                )
    left_out = [name for name in named if name not in segments]
    return [f"{LEFT_OUT}{', '.join(left_out)}"] if left_out else []


def _check_highdicom() -> None:
    try:
        with quiet_libraries():
            import highdicom  # noqa: F401
    except ImportError as err:
        raise UserError(
            f"DICOM segmentations need highdicom ({err}); {how_to_install('dicom')}"
        ) from err


def _build(
    mask: NDArray[Any],
    headers: Sequence[Any],
    planes: slice,
    segments: Mapping[str, tuple[int, ...]],
    names: Sequence[str],
    made_by: MadeBy,
) -> Any:
    """Make highdicom's object of the mask; `planes` are the slices that the mask is of."""
    import highdicom
    from pydicom.sr.codedict import codes

    first = headers[0]
    algorithm, version = made_by.algorithm, made_by.version
    date, time = made_at(first, made_by)
    corrected = () if made_by.corrected is None else (made_by.corrected,)
    identification = highdicom.AlgorithmIdentificationSequence(
        name=algorithm, family=codes.cid7162.ArtificialIntelligence, version=version
    )
    series_uid = derived_uid(first.SeriesInstanceUID, algorithm, version)
    sources = [str(header.SOPInstanceUID) for header in headers]
    digest = hashlib.sha256(np.ascontiguousarray(mask).data).hexdigest()
    images = headers[planes]
    if (whole := getattr(first, "multi_frame", None)) is not None:
        images, mask = [whole], mask[np.argsort([header.frame for header in headers])]
    content = highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=_pixels(mask, segments),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            describe_segment(
                k,
                name,
                names.index(name),
                algorithm=identification,
                corrected=made_by.corrected is not None,
            )
            for k, name in enumerate(segments, start=1)
        ],
        series_instance_uid=series_uid,
        series_number=series_number(first, 1000),
        sop_instance_uid=derived_uid(
            series_uid, *sources, mask.shape, digest, dict(segments), *corrected
        ),
        instance_number=1,
        manufacturer="dinomed3d",
        manufacturer_model_name=algorithm,
        software_versions=version,
        device_serial_number=version,
        omit_empty_frames=bool(mask.any()),
        series_description="Segmentation (dinomed3d)",
        content_label="SEGMENTATION",
        content_description=made_by.description,
        content_date=date,
        content_time=time,
        specific_character_set=character_set(first, *names, algorithm, version),
    )
    # what highdicom makes of random numbers or the clock
    del content.InstanceCreationDate, content.InstanceCreationTime
    for equipment in content.get("ContributingEquipmentSequence", ()):
        if equipment.get("ManufacturerModelName") == "highdicom":
            equipment.pop("ContributionDateTime", None)
    for item in (*content.DimensionOrganizationSequence, *content.DimensionIndexSequence):
        item.DimensionOrganizationUID = derived_uid(content.SOPInstanceUID, "dimensions")
    return content


def _pixels(mask: NDArray[Any], segments: Mapping[str, tuple[int, ...]]) -> NDArray[Any]:
    """(Z, Y, X) of segment numbers; where segments share values (Z, Y, X, segments) of 0 and 1."""
    values = [value for group in segments.values() for value in group]
    if len(set(values)) == len(values):
        numbers = np.zeros(np.iinfo(mask.dtype).max + 1, dtype=mask.dtype)
        for number, group in enumerate(segments.values(), start=1):
            numbers[list(group)] = number
        return numbers[mask]
    stack = np.empty((len(segments), *mask.shape), dtype=np.uint8)
    for belongs, plane in zip(belonging(segments, mask.dtype), stack, strict=True):
        np.take(belongs, mask, out=plane, mode="clip")
    return np.moveaxis(stack, 0, -1)


def _difference(
    part: Path,
    mask: NDArray[Any],
    headers: Sequence[Any],
    segments: Mapping[str, tuple[int, ...]],
) -> str | None:
    """Compare the file with the mask voxel by voxel; None if they are the same.

    Reads without the library that wrote it, one frame at a time: each frame's segment, source slice
    and position, that no frame is missing, and the measures of voxels.
    """
    from pydicom import dcmread

    content = dcmread(part)
    found = [str(item.SegmentLabel) for item in content.SegmentSequence]
    if found != list(segments):
        return f"segments {found} instead of {list(segments)}"
    place = {
        (str(header.SOPInstanceUID), getattr(header, "frame", 0)): z
        for z, header in enumerate(headers)
    }
    positions = slice_positions(headers)
    tables = belonging(segments, mask.dtype)
    seen: set[tuple[int, int]] = set()
    shared = content.SharedFunctionalGroupsSequence[0]  # holds the number of a single segment
    if difference := _measured_otherwise(shared, headers):
        return difference
    groups = content.PerFrameFunctionalGroupsSequence
    for group, frame in zip(groups, _frames(content), strict=True):
        numbered = group if "SegmentIdentificationSequence" in group else shared
        number = int(numbered.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        frame_number = int(source.get("ReferencedFrameNumber") or 0)
        z = place[str(source.ReferencedSOPInstanceUID), frame_number]
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        if np.abs(position - positions[z]).max() > 1e-3:
            return f"slice {z} lies at {position.tolist()} instead of {positions[z].tolist()}"
        if not np.array_equal(frame, tables[number - 1][mask[z]]):
            return f"segment {found[number - 1]!r} on slice {z}"
        seen.add((number, z))
    for z, plane in enumerate(mask):
        values = np.flatnonzero(np.bincount(plane.ravel()))
        for number, table in enumerate(tables, start=1):
            if (number, z) not in seen and table[values].any():
                return f"segment {found[number - 1]!r} lacks slice {z}"
    return None


def _measured_otherwise(shared: Any, headers: Sequence[Any]) -> str | None:
    """Compare spacing and thickness that the file states with those of the series."""
    found = shared.PixelMeasuresSequence[0]
    for element in pixel_measures(headers):
        stated = found.get(element.keyword)
        if stated is None or not np.allclose(stated, element.value, rtol=1e-4, atol=0):
            return f"{element.keyword} {stated} instead of {element.value}"
    return None


def _frames(content: Any) -> Iterator[NDArray[np.uint8]]:
    """(Y, X) of 0 and 1, one after the other; they follow each other bit by bit, lowest bit first.

    Source: DICOM part 5, 8.1.1. pydicom 3.0.1 fails where a frame starts within a byte.
    """
    size = int(content.Rows) * int(content.Columns)
    packed = np.frombuffer(content.PixelData, dtype=np.uint8)
    for start in range(0, int(content.NumberOfFrames) * size, size):
        bits = np.unpackbits(packed[start // 8 : -(-(start + size) // 8)], bitorder="little")
        yield bits[start % 8 : start % 8 + size].reshape(int(content.Rows), int(content.Columns))
