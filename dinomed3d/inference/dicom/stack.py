"""Slices of a DICOM series as one straight stack, even or of two increments, or the reason why they are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.dicom.header import DISTINGUISHING, SINGLE_FRAME, Header
from dinomed3d.inference.dicom.increments import finest_of_two, numbers_are_missing
from dinomed3d.inference.dicom.inverted import NOTE, is_shown_inverted
from dinomed3d.inference.patient_axes import LPS_TO_RAS
from dinomed3d.runtime.messages.counted import counted

GAP_TOLERANCE = 0.01
"""Tolerance of slice gaps, as a fraction of the median gap."""
GAP_TOLERANCE_MM = 0.01
"""Tolerance of slice gaps, mm, because scanners round positions; the larger of the two tolerances applies."""
ANGLE_TOLERANCE_DEGREES = 0.2
"""Largest angle between the slices' normal and the line they are stacked along: rounded cosines reach it."""
_EXPORT_AGAIN = (
    "export the series again, or, if that is not possible, fill the gaps with a tool that interpolates "
    "(dcm2niix) and check the result"
)
_RESAMPLE = "resample it to even slices, for example with dcm2niix (its file NAME_Eq.nii.gz)"
_CONVERT = "convert it to .nii.gz (for example with dcm2niix)"


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Where the pixels of one slice lie, in DICOM's patient coordinates (LPS, millimetres)."""

    name: str
    """File name, for messages."""
    position: NDArray[np.float64]
    """(3,) centre of the first pixel."""
    row: NDArray[np.float64]
    """(3,) unit vector along a row: the column index x grows."""
    column: NDArray[np.float64]
    """(3,) unit vector along a column: the row index y grows."""
    spacing: tuple[float, float]
    """Pixel spacing (y, x) in millimetres."""
    shape: tuple[int, int]
    """Rows and columns (Y, X)."""
    thickness: float
    """SliceThickness in millimetres, 0 where it is absent."""
    header: Header
    """Its header, for what distinguishes it from other slices at the same position."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The voxel grid that the slices of a series make."""

    order: tuple[int, ...]
    """Which plane is slice 0, 1, ...: along the normal, so that x, y, z are right-handed."""
    shape_zyx: tuple[int, int, int]
    """Slices, rows, columns; of two increments the number of even slices of the finer one."""
    spacing_zyx: tuple[float, float, float]
    """Voxel spacing in millimetres."""
    affine: NDArray[np.float64]
    """(4, 4): voxel (x, y, z) -> millimetres, RAS+."""
    notes: tuple[str, ...] = ()
    """What was assumed, for the report."""
    places: tuple[float, ...] = ()
    """Of two increments: where each slice lies among the even slices of the grid; empty for even slices."""


def plane(header: Header, name: str) -> Plane:
    """Read the geometry of one slice from its header.

    Raises:
        CaseError: Elements are missing or invalid, or the image is in colour or has several frames.
    """
    frames = header.get("NumberOfFrames")
    if frames not in SINGLE_FRAME:
        raise CaseError(
            f"{name} holds {frames} frames in one DICOM object (enhanced or multi-frame), "
            f"which is not supported; {_CONVERT}"
        )
    colour = header.get("PhotometricInterpretation") or "MONOCHROME2"
    if header.get("SamplesPerPixel") not in ("", "1") or colour == "PALETTE COLOR":
        raise CaseError(f"{name} is a colour image ({colour}); slices of one channel are needed")
    if "MOSAIC" in header.get("ImageType").upper().split("\\"):
        raise CaseError(f"{name} is a mosaic of all slices in one image; {_CONVERT}")
    position = _numbers(header, "ImagePositionPatient", 3, name)
    cosines = _numbers(header, "ImageOrientationPatient", 6, name)
    spacing = _numbers(header, "PixelSpacing", 2, name)
    if min(spacing) <= 0:
        raise CaseError(f"{name} has the PixelSpacing {spacing}; it must be > 0 mm")
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.9 or max(lengths) > 1.1 or abs(row @ column) > 0.01:
        raise CaseError(
            f"{name} has the ImageOrientationPatient {cosines}, "
            "which are not two unit vectors at right angles"
        )
    rows, columns = header.get("Rows"), header.get("Columns")
    if not (rows.isdigit() and columns.isdigit()):
        raise CaseError(f"{name} lacks Rows or Columns, the size of its image")
    try:
        thickness = float(header.get("SliceThickness") or 0)
    except ValueError:
        thickness = 0.0
    return Plane(
        name=name,
        position=np.array(position),
        row=row / lengths[0],
        column=column / lengths[1],
        spacing=(spacing[0], spacing[1]),
        shape=(int(rows), int(columns)),
        thickness=thickness,
        header=header,
    )


def _numbers(header: Header, keyword: str, count: int, name: str) -> tuple[float, ...]:
    text = header.get(keyword)
    if not text:
        raise CaseError(f"{name} has no {keyword}, so the position of its slice is unknown")
    try:
        numbers = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise CaseError(f"{name} has the {keyword} {text!r}; {count} numbers are needed")
    return numbers


def stack(planes: Sequence[Plane]) -> Stack:
    """Sort slices by their position and check that they make one grid.

    Args:
        planes: One or more, in any order.

    Raises:
        CaseError: Sizes, spacings or orientations differ; several slices at one position; uneven
            gaps other than two increments; slices shifted against each other (gantry tilt); a single
            one without thickness.
    """
    first = planes[0]
    _check_uniform(planes)
    normal = np.cross(first.row, first.column)
    normal /= np.linalg.norm(normal)
    heights = np.array([p.position for p in planes]) @ normal
    order = np.argsort(heights, kind="stable")
    planes, heights = [planes[i] for i in order], heights[order]
    inverted = any(is_shown_inverted(one.header) for one in planes)
    notes: tuple[str, ...] = (NOTE,) if inverted else ()
    if len(planes) == 1:
        if not 0 < first.thickness < np.inf:
            raise CaseError(f"{first.name} is a single slice without SliceThickness")
        step = normal * first.thickness
        notes += (f"a single slice: its thickness of {first.thickness:g} mm is taken as spacing",)
    else:
        finest = _finest_gap(planes, heights)
        step = _step(planes, heights, normal, finest)
        if finest is not None:
            return _of_two_increments(order, planes, heights, step, finest, notes)
    return _grid(order, planes, step, notes=notes)


def _grid(
    order: NDArray[np.intp],
    planes: Sequence[Plane],
    step: NDArray[np.float64],
    *,
    count: int | None = None,
    notes: tuple[str, ...] = (),
    places: tuple[float, ...] = (),
) -> Stack:
    """The grid whose first slice is the first plane; of `count` slices, or one for each plane."""
    first = planes[0]
    y, x = first.spacing
    lps = np.eye(4)
    lps[:3, :3] = np.stack([first.row * x, first.column * y, step], axis=1)
    lps[:3, 3] = first.position
    return Stack(
        order=tuple(int(i) for i in order),
        shape_zyx=(len(planes) if count is None else count, *first.shape),
        spacing_zyx=(float(np.linalg.norm(step)), y, x),
        affine=LPS_TO_RAS @ lps,
        notes=notes,
        places=places,
    )


def _of_two_increments(
    order: NDArray[np.intp],
    planes: Sequence[Plane],
    heights: NDArray[np.float64],
    step: NDArray[np.float64],
    finest: float,
    notes: tuple[str, ...],
) -> Stack:
    """The grid of even slices at the finer of two increments."""
    places = (heights - heights[0]) / finest
    whole = np.rint(places)
    places = np.where(np.abs(places - whole) <= 0.05, whole, places)
    count = int(np.rint(places[-1])) + 1
    gaps = np.diff(heights)
    note = (
        f"two slice increments, {gaps.min():.4g} and {gaps.max():.4g} mm: its {len(planes)} slices were interpolated "
        f"linearly to {count} even slices of {finest:.4g} mm and predicted there; the mask on the original slices (the "
        "label at each of them) is in CASE.slices.nii.gz and in a DICOM segmentation"
    )
    return _grid(
        order,
        planes,
        step,
        count=count,
        notes=(*notes, note),
        places=tuple(float(p) for p in places),
    )


def _check_uniform(planes: Sequence[Plane]) -> None:
    """One size, one pixel spacing, one orientation."""
    axes = np.array([np.concatenate([p.row, p.column]) for p in planes])
    sizes, spacings = (
        np.array([getattr(p, name) for p in planes]) for name in ("shape", "spacing")
    )
    for what, values, tolerance in (
        ("sizes", sizes, 0),
        ("pixel spacings", spacings, 1e-3 * spacings[0]),
        ("orientations", axes, 1e-3),
    ):
        differs = (np.abs(values - values[0]) > tolerance).any(axis=1)
        if differs.any():
            other = int(differs.argmax())
            raise CaseError(
                f"slices of several {what} in one series: {planes[0].name} has {values[0].tolist()}, "
                f"{planes[other].name} {values[other].tolist()} (a localizer, or several stacks?); "
                "give one stack per series"
            )


def _finest_gap(planes: Sequence[Plane], heights: NDArray[np.float64]) -> float | None:
    """The finer of two slice increments; None where the gaps between the sorted slices are even.

    Raises:
        CaseError: Several slices at one position, or gaps that are uneven in another way.
    """
    gaps = np.diff(heights)
    if (gaps < 1e-3).any():
        raise CaseError(_explain_same_position(planes, gaps))
    median = float(np.median(gaps))
    uneven = np.abs(gaps - median) > max(GAP_TOLERANCE * median, GAP_TOLERANCE_MM)
    if not uneven.any():
        return None
    numbers = _numbers_of(planes)
    finest = finest_of_two(gaps, numbers, tolerance=GAP_TOLERANCE, tolerance_mm=GAP_TOLERANCE_MM)
    if finest is not None:
        return finest
    worst = int(np.argmax(np.abs(gaps - median)))
    advice = _RESAMPLE
    if numbers is not None and numbers_are_missing(gaps, numbers, float(gaps.min())):
        lost = abs(numbers[-1] - numbers[0]) + 1 - len(numbers)
        are = "is" if lost == 1 else "are"
        advice = f"{counted(lost, 'slice')} {are} missing (gaps in InstanceNumber): {_EXPORT_AGAIN}"
    elif gaps[worst] > 1.5 * median and uneven.sum() < 4:
        advice = f"a slice may be missing there: {_EXPORT_AGAIN}"
    tilt = _tilt(planes)
    raise CaseError(
        f"gaps between its {len(planes)} slices are uneven: {gaps.min():.4g} to {gaps.max():.4g} mm, "
        f"median {median:.4g}, {gaps[worst]:.4g} between {planes[worst].name} and "
        f"{planes[worst + 1].name}"
        + (f", and the gantry is tilted by {tilt:.1f} degrees" if tilt > 1 else "")
        + f"; {advice}"
    )


def _numbers_of(planes: Sequence[Plane]) -> list[int] | None:
    """InstanceNumber of each slice; None where one is no number."""
    numbers = [one.header.get("InstanceNumber") for one in planes]
    return [int(n) for n in numbers] if all(n.isdecimal() for n in numbers) else None


def _explain_same_position(planes: Sequence[Plane], gaps: NDArray[np.float64]) -> str:
    """Which slices lie at one position, and what differs between them."""
    where = int(np.argmax(gaps < 1e-3))
    one, other = planes[where], planes[where + 1]
    differing = [
        f"{keyword} {one.header.get(keyword) or 'none'} and {other.header.get(keyword) or 'none'}"
        for keyword in DISTINGUISHING
        if one.header.get(keyword) != other.header.get(keyword)
    ]
    why = "the same slice twice, or several stacks in one series"
    if differing:
        why = (
            f"they differ in {', '.join(differing[:2])}: "
            "several echoes, time points or stacks in one series"
        )
    return (
        f"{len(planes)} slices at only {counted(int((gaps >= 1e-3).sum()) + 1, 'position')} "
        f"({one.name} and {other.name} lie at one): {why}; "
        "split the series, or convert it to one file per volume"
    )


def _tilt(planes: Sequence[Plane]) -> float:
    """Degrees between the normal and the line from the first slice to the last."""
    normal = np.cross(planes[0].row, planes[0].column)
    line = planes[-1].position - planes[0].position
    up = line @ normal
    return float(np.degrees(np.arctan2(np.linalg.norm(line - up * normal), abs(up))))


def _step(
    planes: Sequence[Plane],
    heights: NDArray[np.float64],
    normal: NDArray[np.float64],
    finest: float | None,
) -> NDArray[np.float64]:
    """(3,) from one slice of the grid to the next, as the positions say, so that none of them is moved."""
    positions = np.array([p.position for p in planes])  # (N, 3)
    along = np.arange(len(positions), dtype=float)
    if finest is not None:
        along = (heights - heights[0]) / finest
    step = (positions[-1] - positions[0]) / along[-1]
    half_pixel = 0.5 * min(planes[0].spacing)
    shift = (step - (step @ normal) * normal) * along[-1]
    angle = _tilt(planes)
    if angle > ANGLE_TOLERANCE_DEGREES and np.linalg.norm(shift) > half_pixel:
        raise CaseError(
            f"gantry tilt: its slices are shifted against each other, {angle:.1f} degrees off "
            "their normal; correct it with a tool that does so (dcm2niix) first"
        )
    residual = positions - (positions[0] + along[:, None] * step)
    residual -= (residual @ normal)[:, None] * normal
    distance = np.linalg.norm(residual, axis=1)
    if distance.max() > half_pixel:
        raise CaseError(
            f"slices do not lie on one line: {planes[int(distance.argmax())].name} is "
            f"{distance.max():.3g} mm off it"
        )
    return step
