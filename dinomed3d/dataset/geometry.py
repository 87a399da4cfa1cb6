"""Geometry from headers alone: channels and label of a case must lie on one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dinomed3d.dataset.files import RawCase
from dinomed3d.dataset.findings import CaseFault, Fault
from dinomed3d.dataset.headers import Header, read_header

FAULTS: Mapping[str, Fault] = {
    "header": Fault(
        topic="geometry",
        says="have a file whose header cannot be read",
        fix="copy or convert these files again",
    ),
    "axes": Fault(
        topic="geometry",
        says="have files with several volumes",
        fix="save each time point or channel as a file of its own (CASE_0000, CASE_0001, ...)",
    ),
    "size": Fault(
        topic="geometry",
        says="have channels or a label of another shape or spacing than the first channel",
        fix="resample them to the grid of the first channel (labels with nearest neighbours)",
    ),
    "place": Fault(
        topic="geometry",
        says="have channels or a label at another place or in another direction than the first channel; nnU-Net "
        "lays voxel on voxel all the same, so that labels may lie on the wrong anatomy",
        fix="look at one in a viewer: resample the file to the grid of the first channel, or, where only its header is "
        "wrong, give it that of the first channel (SimpleITK: CopyInformation)",
    ),
    "spacing": Fault(
        topic="geometry",
        says="have a spacing that no scanner makes",
        fix="correct the unit in the header (mm) and convert again",
    ),
    "nearly": Fault(
        topic="geometry",
        says="have channels or a label that lie less than half a voxel off",
        fix="nothing, if it is rounding of headers; nnU-Net lays voxel on voxel",
        state="note",
    ),
}
SPACINGS_MM = (0.005, 100.0)
"""Voxel sides outside this range are a wrong unit; 2D files have no side across their plane."""
_SAME_MM = 1e-3


def read_headers(
    cases: Sequence[RawCase], *, threads: int = 8
) -> tuple[dict[str, Header], list[CaseFault]]:
    """The header of each case's first channel, and the faults of all its headers.

    Args:
        cases: training cases, and test cases.
        threads: that read files at the same time.

    Returns:
        Case -> header, without cases whose header cannot be read.
    """
    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(_check_case, cases))
    headers = {
        case.name: header
        for case, (header, _) in zip(cases, results, strict=True)
        if header is not None
    }
    return headers, [fault for _, faults in results for fault in faults]


def _check_case(case: RawCase) -> tuple[Header | None, list[CaseFault]]:
    first: Header | None = None
    faults: list[CaseFault] = []
    for path in (*case.images, *([] if case.label is None else [case.label])):
        try:
            header = read_header(path)
        except RuntimeError as error:
            faults.append(CaseFault("header", case.name, f"{path.name}: {_reason(error)}"))
            continue
        if sum(length > 1 for length in header.shape[3:]):
            shape = " x ".join(map(str, header.shape))
            faults.append(CaseFault("axes", case.name, f"{path.name}: {shape}"))
        elif first is None and path == case.images[0]:
            first = header
            faults += _spacing(case.name, header)
        elif first is not None:
            faults += _compare(case.name, path.name, first, header)
    return first, faults


def _spacing(case: str, header: Header) -> list[CaseFault]:
    low, high = SPACINGS_MM
    if len(header.shape) < 3 or all(low <= side <= high for side in header.spacing_mm):
        return []
    return [CaseFault("spacing", case, " x ".join(f"{s:.4g}" for s in header.spacing_mm) + " mm")]


def _compare(case: str, name: str, first: Header, other: Header) -> list[CaseFault]:
    """What separates the grid of a file from that of the first channel."""
    if other.shape != first.shape:
        shapes = [" x ".join(map(str, h.shape)) for h in (other, first)]
        return [
            CaseFault("size", case, f"{name} has {shapes[0]} voxels, the first has {shapes[1]}")
        ]
    if not np.allclose(other.spacing_mm, first.spacing_mm):  # as nnU-Net compares them
        sides = [" x ".join(f"{s:.5g}" for s in h.spacing_mm) for h in (other, first)]
        return [
            CaseFault("size", case, f"{name} has voxels of {sides[0]} mm, the first {sides[1]}")
        ]
    off_mm = float(np.linalg.norm(other.corners_mm - first.corners_mm, axis=1).max())
    if off_mm <= _SAME_MM:
        return []
    kind = "nearly" if off_mm < min(first.spacing_mm) / 2 else "place"
    return [CaseFault(kind, case, f"{name} lies up to {off_mm:.3g} mm off")]


def _reason(error: Exception) -> str:
    """The last line of what ITK says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][-160:] if lines else type(error).__name__
