"""The volumes that one DICOM series holds: copies and scouts left out, phases and echoes separated."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.dicom.copies import without_copies
from dinomed3d.inference.dicom.series import Series, SliceFile
from dinomed3d.inference.dicom.stack import Plane, plane, stack

_SEPARATED_BY = {
    "StackID": "stack",
    "AcquisitionNumber": "acquisition",
    "TemporalPositionIdentifier": "time",
    "EchoTime": "echo",
    "DiffusionBValue": "b",
    "TriggerTime": "trigger",
    "NominalPercentageOfCardiacPhase": "phase",
    "ConvolutionKernel": "kernel",
    "ContrastBolusAgent": "contrast",
    "AcquisitionTime": "time",
    "ImageType": "type",
    "AcquisitionDateTime": "time",
    "ContentTime": "time",
}
"""DICOM keyword -> the word in the name of a volume; the first that leaves even stacks counts."""
_MOST_SCOUTS = 3
"""A series has at most this many slices in another orientation that are taken as scouts."""
_SLICES_PER_SCOUT = 4
"""And at least this many others for each of them."""
_OTHER_ORIENTATION = 0.1
"""Difference of direction cosines (about 6 degrees) from which slices lie in another orientation."""
_SAME_POSITION_MM = 1e-3
_SHORT = re.compile(r"[\w.+-]{1,12}")
"""Words and numbers that stand in the names of volumes; if one is none, all volumes are numbered instead."""


@dataclass(frozen=True, kw_only=True)
class SeriesVolume:
    """One volume of a series."""

    series: Series
    """The slices of this volume alone."""
    name: str = ""
    """What distinguishes it from the other volumes of its series: `acquisition-2`; empty for an only one."""
    notes: tuple[str, ...] = ()
    """What was left out or separated, for the report."""


def volumes_of_series(series: Series) -> list[SeriesVolume]:
    """Leave copies and scouts out of a series, and separate volumes at the same positions.

    - Slices with one SOPInstanceUID, equal headers and equal pixel bytes are one slice.
    - Up to 3 slices in another orientation than the many others are scouts.
    - Where slices still share positions, the first of a few elements (AcquisitionNumber,
      TemporalPositionIdentifier, EchoTime, ...) whose values each make an even stack separates them.

    Whatever is not explained by these three is left as it is, for `stack` to refuse.

    Args:
        series: as found by `find_series`.

    Returns:
        One or more volumes, sorted by the value that separates them.
    """
    slices, copies = without_copies(series)
    slices, scouts = _without_scouts(slices)
    notes = tuple(note for note in (*series.notes, copies, scouts) if note)
    whole = replace(series, slices=slices)
    groups = _separated(slices)
    if groups is None:
        return [SeriesVolume(series=whole, notes=notes)]
    keyword, members = groups
    values = sorted(members, key=_by_value)
    short = all(_SHORT.fullmatch(value) for value in values)
    return [
        SeriesVolume(
            series=replace(series, slices=tuple(members[value])),
            name=f"{_SEPARATED_BY[keyword]}-{value if short else place}",
            notes=(
                *notes,
                f"one of {len(values)} volumes of {whole.label} at the same positions: {keyword} "
                f"{value or 'none'}",
            ),
        )
        for place, value in enumerate(values, 1)
    ]


def _planes(slices: Sequence[SliceFile]) -> list[Plane] | None:
    """The geometry of all slices; None where one has none, which `stack` refuses by name."""
    try:
        return [plane(one.header, one.name) for one in slices]
    except CaseError:
        return None


def _without_scouts(slices: tuple[SliceFile, ...]) -> tuple[tuple[SliceFile, ...], str]:
    """The slices without a few in another orientation, and a note."""
    planes = _planes(slices)
    if planes is None:
        return slices, ""
    axes = np.array([np.concatenate([one.row, one.column]) for one in planes])  # (N, 6)
    usual = np.median(axes, axis=0)
    other = (np.abs(axes - usual) > _OTHER_ORIENTATION).any(axis=1)
    count = int(other.sum())
    if not 0 < count <= _MOST_SCOUTS or len(slices) - count < _SLICES_PER_SCOUT * count:
        return slices, ""
    left_out = [one.name for one, is_other in zip(slices, other, strict=True) if is_other]
    left = tuple(one for one, is_other in zip(slices, other, strict=True) if not is_other)
    return left, (
        f"{count} of {len(slices)} slices lie in another orientation (scout) and were left out: "
        f"{', '.join(left_out)}"
    )


def _separated(slices: tuple[SliceFile, ...]) -> tuple[str, dict[str, list[SliceFile]]] | None:
    """The element whose values separate slices at the same positions, and the slices by value."""
    planes = _planes(slices)
    if planes is None:
        return None
    keywords = tuple(_SEPARATED_BY)
    if not _share_positions(planes):
        # stacks of a multi-frame object may lie anywhere, and are separate ones only if they are no stack together
        keywords = () if _is_even_stack(slices) else ("StackID",)
    for keyword in keywords:
        members: dict[str, list[SliceFile]] = defaultdict(list)
        for one in slices:
            members[one.header.get(keyword)].append(one)
        if len(members) > 1 and all(_is_even_stack(group) for group in members.values()):
            return keyword, members
    return None


def _share_positions(planes: Sequence[Plane]) -> bool:
    normal = np.cross(planes[0].row, planes[0].column)
    heights = np.sort(np.array([one.position for one in planes]) @ normal)
    return bool((np.diff(heights) < _SAME_POSITION_MM).any())


def _is_even_stack(slices: Sequence[SliceFile]) -> bool:
    """Whether these are two or more slices that make one grid."""
    planes = _planes(slices)
    if planes is None or len(planes) < 2:
        return False
    try:
        stack(planes)
    except CaseError:
        return False
    return True


def _by_value(value: str) -> tuple[float, str]:
    """Numbers by size, then texts."""
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value
