"""Slices of a DICOM series as one straight, evenly spaced stack, or the reason why they are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.dicom import tags

GAP_TOLERANCE = 0.01
"""Of the median gap between slices."""
GAP_TOLERANCE_MM = 0.01
"""Scanners round positions; the larger of the two tolerances holds."""
ANGLE_TOLERANCE_DEGREES = 0.2
"""Between the slices' normal and the line that they are stacked along: rounded cosines reach this."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Where the pixels of one slice lie, in DICOM's patient coordinates (LPS, millimetres)."""

    name: str
    """Of the file, for messages."""
    position: tuple[float, float, float]
    """Centre of the first pixel."""
    along: tuple[float, float, float]
    """Unit vector in which the column index x grows."""
    down: tuple[float, float, float]
    """Unit vector in which the row index y grows."""
    spacing: tuple[float, float]
    """(y, x), millimetres."""
    shape: tuple[int, int]
    """(Y, X), pixels."""
    thickness: float
    """Millimetres, 0 where it is not said."""
    others: Mapping[str, str]
    """What may tell it from others at the same position: `EchoTime` -> text."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A grid of voxels made of slices."""

    order: tuple[int, ...]
    """Which plane is slice 0, 1, ...: along the normal, so that x, y, z are right-handed."""
    spacing_zyx: tuple[float, float, float]
    """Millimetres."""
    affine: NDArray[np.float64]
    """(4, 4): voxel (x, y, z) -> millimetres, RAS+."""
    notes: tuple[str, ...] = ()


def plane(values: Mapping[str, str], name: str) -> Plane:
    """Read the geometry of one slice from its tags, by `gggg|eeee`.

    Raises:
        CaseError: Tags are missing or hold no such numbers, or the file is colour or many frames.
    """
    frames = values.get(tags.FRAMES, "").strip()
    if frames not in ("", "0", "1"):
        raise CaseError(
            f"{name} holds {frames} frames in one DICOM object (enhanced or multi-frame), which is not read; "
            "convert it to .nii.gz (for example with dcm2niix)"
        )
    colour = values.get(tags.PHOTOMETRIC, "MONOCHROME2").strip()
    if values.get(tags.SAMPLES, "1").strip() not in ("", "1") or colour == "PALETTE COLOR":
        raise CaseError(f"{name} is a colour image ({colour}); slices of one channel are needed")
    if "MOSAIC" in values.get(tags.IMAGE_TYPE, "").upper().split("\\"):
        raise CaseError(
            f"{name} is a mosaic: all slices of a volume side by side in one image; "
            "convert it to .nii.gz (for example with dcm2niix)"
        )
    position = _numbers(values, tags.POSITION, 3, "ImagePositionPatient", name)
    cosines = _numbers(values, tags.ORIENTATION, 6, "ImageOrientationPatient", name)
    spacing = _numbers(values, tags.PIXEL_SPACING, 2, "PixelSpacing", name)
    if min(spacing) <= 0:
        raise CaseError(f"{name} has the PixelSpacing {spacing}; it must be > 0 mm")
    along, down = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(along), np.linalg.norm(down)
    if min(lengths) < 0.9 or max(lengths) > 1.1 or abs(along @ down) > 0.01:
        raise CaseError(
            f"{name} has the ImageOrientationPatient {cosines}, which are not two unit vectors at right angles"
        )
    rows, columns = (values.get(tag, "").strip() for tag in (tags.ROWS, tags.COLUMNS))
    if not (rows.isdigit() and columns.isdigit()):
        raise CaseError(f"{name} does not say how many rows and columns it has")
    try:
        thickness = float(values.get(tags.THICKNESS, "") or 0)
    except ValueError:
        thickness = 0.0
    return Plane(
        name=name,
        position=(position[0], position[1], position[2]),
        along=tuple(along / lengths[0]),
        down=tuple(down / lengths[1]),
        spacing=(spacing[0], spacing[1]),
        shape=(int(rows), int(columns)),
        thickness=thickness if np.isfinite(thickness) else 0.0,
        others={word: values.get(tag, "").strip() for tag, word in tags.TOLD_APART_BY.items()},
    )


def _numbers(
    values: Mapping[str, str], tag: str, count: int, word: str, name: str
) -> tuple[float, ...]:
    text = values.get(tag, "").strip(" \0")
    if not text:
        raise CaseError(f"{name} has no {word}, so where its slice lies is not known")
    try:
        numbers = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise CaseError(f"{name} has the {word} {text!r}; {count} numbers are needed")
    return numbers


def stack(planes: Sequence[Plane]) -> Stack:
    """Sort slices by their position and check that they make one grid.

    Args:
        planes: One or more, in any order.

    Raises:
        CaseError: Sizes, spacings or orientations differ; several slices at one position; uneven
            gaps; slices shifted against each other (gantry tilt); a single one without thickness.
    """
    first = planes[0]
    _check_alike(planes)
    normal = np.cross(first.along, first.down)
    normal /= np.linalg.norm(normal)
    positions = np.array([p.position for p in planes])  # (N, 3)
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    notes: tuple[str, ...] = ()
    if len(planes) == 1:
        if first.thickness <= 0:
            raise CaseError(f"{first.name} is a single slice without SliceThickness")
        step = normal * first.thickness
        notes = (f"a single slice: its thickness of {first.thickness:g} mm is taken as spacing",)
    else:
        _check_gaps([planes[i] for i in order], heights[order])
        step = _step([planes[i] for i in order], positions[order], normal)
    y, x = first.spacing
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = (
        np.multiply(first.along, x),
        np.multiply(first.down, y),
        step,
    )
    lps[:3, 3] = positions[order[0]]
    return Stack(
        order=tuple(int(i) for i in order),
        spacing_zyx=(float(np.linalg.norm(step)), y, x),
        affine=np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps,
        notes=notes,
    )


def _check_alike(planes: Sequence[Plane]) -> None:
    """One size, one pixel spacing, one orientation."""
    first = planes[0]
    for other in planes[1:]:
        if other.shape != first.shape:
            raise CaseError(
                f"slices of several sizes in one series: {first.name} has {first.shape[0]} x {first.shape[1]} "
                f"pixels, {other.name} {other.shape[0]} x {other.shape[1]}"
            )
        if not np.allclose(other.spacing, first.spacing, rtol=1e-3, atol=0):
            raise CaseError(
                f"slices of several pixel spacings in one series: {first.name} has {first.spacing} mm, "
                f"{other.name} {other.spacing} mm"
            )
        turned = max(
            np.abs(np.subtract(other.along, first.along)).max(),
            np.abs(np.subtract(other.down, first.down)).max(),
        )
        if turned > 1e-3:
            raise CaseError(
                f"slices of several orientations in one series ({first.name} and {other.name} differ): "
                "a localizer, or several stacks; give one stack per series"
            )


def _check_gaps(planes: Sequence[Plane], heights: NDArray[np.float64]) -> None:
    """Even ones, in ascending order of the slices along their normal."""
    gaps = np.diff(heights)
    if (gaps < 1e-3).any():
        raise CaseError(_why_twice(planes, heights))
    median = float(np.median(gaps))
    far = np.abs(gaps - median) > max(GAP_TOLERANCE * median, GAP_TOLERANCE_MM)
    if not far.any():
        return
    where = int(np.argmax(np.abs(gaps - median)))
    tilt = _tilt(planes, np.array([p.position for p in planes]))
    more = f", and the gantry is tilted by {tilt:.1f} degrees" if tilt > 1 else ""
    guess = "; a slice may be missing there" if gaps[where] > 1.5 * median and far.sum() < 4 else ""
    raise CaseError(
        f"gaps between its {len(planes)} slices are uneven: {gaps.min():.4g} to {gaps.max():.4g} mm, "
        f"median {median:.4g}, {gaps[where]:.4g} between {planes[where].name} and {planes[where + 1].name}{guess}{more}"
    )


def _why_twice(planes: Sequence[Plane], heights: NDArray[np.float64]) -> str:
    """In words: several slices at one position, and what differs between them."""
    places = int((np.diff(heights) >= 1e-3).sum()) + 1
    again = int(np.argmax(np.diff(heights) < 1e-3))
    pair = planes[again], planes[again + 1]
    differing = [word for word in pair[0].others if pair[0].others[word] != pair[1].others[word]]
    if differing:
        words = ", ".join(
            f"{word} {pair[0].others[word] or 'none'} and {pair[1].others[word] or 'none'}"
            for word in differing[:2]
        )
        why = f"they differ in {words}: several echoes, time points or stacks in one series"
    else:
        why = "the same slice twice, or several stacks in one series"
    return (
        f"{len(planes)} slices at only {places} positions ({pair[0].name} and {pair[1].name} lie at one): {why}; "
        "split the series, or convert it to one file per volume"
    )


def _tilt(planes: Sequence[Plane], positions: NDArray[np.float64]) -> float:
    """Degrees between the normal and the line from the first slice to the last."""
    normal = np.cross(planes[0].along, planes[0].down)
    line = positions[-1] - positions[0]
    up = line @ normal
    return float(np.degrees(np.arctan2(np.linalg.norm(line - up * normal), abs(up))))


def _step(
    planes: Sequence[Plane], positions: NDArray[np.float64], normal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(3,) from one slice to the next: as the positions say, so that none of them is moved."""
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    half_pixel = 0.5 * min(planes[0].spacing)
    aside = step - (step @ normal) * normal
    angle = _tilt(planes, positions)
    if (
        angle > ANGLE_TOLERANCE_DEGREES
        and np.linalg.norm(aside) * (len(positions) - 1) > half_pixel
    ):
        raise CaseError(
            f"gantry tilt: its slices are shifted against each other, {angle:.1f} degrees off their normal; "
            "convert it with a tool that corrects tilt (dcm2niix) first"
        )
    left = positions - (positions[0] + np.arange(len(positions))[:, None] * step)
    left -= (left @ normal)[:, None] * normal
    furthest = np.linalg.norm(left, axis=1)
    if furthest.max() > half_pixel:
        raise CaseError(
            f"slices do not lie in one line: {planes[int(furthest.argmax())].name} is "
            f"{furthest.max():.3g} mm beside it"
        )
    return step
