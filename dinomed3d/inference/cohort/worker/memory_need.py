"""Memory estimate of a case, and the split with which it fits the limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker.footprint import GIB, Footprint
from dinomed3d.inference.nnunet.plan import Plan
from dinomed3d.inference.nnunet.resample import new_shape

CHUNK_BYTES = 200 * 2**20
"""Bytes of all chunks of volumes that are processed at the same time."""
ALLOCATOR_FACTOR = 1.15
"""Factor for memory that allocators keep and libraries use for a moment."""
MAX_SPLITS = 16
"""A volume is divided into at most this many row ranges."""
_ODD_FACTOR = 50
"""Resampling to so many voxels along an axis for each of the scan's is a wrong unit, not a large scan."""
_IN_FULL = 1e9
_SMALLEST_MM = 1e-4
"""No scanner has smaller voxels, those of micro-CT included."""


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Memory of one case, in bytes above the base."""

    splits: int
    """Number of row ranges in which the network's grid is predicted one after the other."""
    peak: int
    """Highest memory of all steps."""


def estimate(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    plan: Plan,
    footprint: Footprint,
    limit: int,
    *,
    spec: PredictSpec,
    ending: str,
) -> MemoryNeed:
    """Find the split with which a volume fits under a limit.

    Args:
        shape: (Z, Y, X) of the volume, in the stored order of axes.
        spacing_mm: (z, y, x) of the volume.
        plan: of the model.
        footprint: of the process.
        limit: bytes for the whole process.
        spec: what else is written, and the step between windows.
        ending: of the scan's files: some readers take more memory than others.

    Returns:
        The smallest number of row ranges that fits, and the peak.

    Raises:
        CaseError: it does not fit, however often it is split.
    """
    size = _Sizes.of(shape, spacing_mm, plan)
    raw = 4 * size.voxels * size.channels
    mask = size.voxels * (1 if plan.largest_label < 256 else 2)
    whole = _whole_volume_bytes(size, raw, mask, plan, dicom_seg=spec.dicom_seg, ending=ending)
    if spec.postprocessing_steps is not None:  # the numbers of components, and where they may be
        whole = max(whole, raw + 2 * mask + 5 * size.voxels + CHUNK_BYTES)
    if spec.save_probabilities == "npz":  # one class at a time
        whole = max(whole, raw + 4 * mask + 8 * size.voxels + CHUNK_BYTES)
    fine = 16 * plan.heads * size.stored_plane if spec.save_probabilities else 0
    inputs = size.input_bytes(size.grid)
    if size.padded != size.grid:
        inputs += size.input_bytes(size.padded)
    across = _count_windows(size.padded[2], size.patch[2], spec.step_size)
    down = _count_windows(size.padded[1], size.patch[1], spec.step_size)
    peak = 0
    for splits in range(1, MAX_SPLITS + 1):
        plane = min(size.padded[1], -(-size.padded[1] // splits) + 2) * size.padded[2]
        sums = 2 * (plan.heads + 1) * size.patch[0] * plane
        export = 8 * 4 * plan.heads * plane  # two planes of logits, their mixture, their certainty
        places = across * min(down, -(-down // splits) + 2)
        cached = min(footprint.cache, size.patch[0] * places * footprint.slice)
        predicting = (
            raw + inputs + sums + export + fine + cached + mask + CHUNK_BYTES + footprint.window
        )
        peak = int(ALLOCATOR_FACTOR * max(whole, predicting))
        if footprint.base + peak <= limit:
            return MemoryNeed(splits=splits, peak=peak)
    raise CaseError(
        f"needs about {_short((footprint.base + peak) / GIB)} GiB of memory even in {MAX_SPLITS} parts, and "
        f"{limit / GIB:.1f} GiB are allowed: {_resampling(size, shape, spacing_mm, plan)}"
    )


def input_bytes(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], plan: Plan
) -> int:
    """Bytes of the network's input of a volume (Z, Y, X)."""
    size = _Sizes.of(shape, spacing_mm, plan)
    return size.input_bytes(size.grid)


def _count_windows(size: int, patch: int, step: float) -> int:
    """As many as `window_starts` gives, without a list of them: impossible sizes are refused here."""
    return math.ceil((size - patch) / (patch * step)) + 1


def _short(number: float) -> str:
    """Up to a billion in full, GiB with a digit behind the point; more as a power of ten."""
    if number >= _IN_FULL:
        return f"{number:.1e}"
    return f"{number:,}" if isinstance(number, int) else f"{number:.1f}"


def _resampling(
    size: _Sizes, shape: tuple[int, int, int], spacing_mm: tuple[float, ...], plan: Plan
) -> str:
    """The scan's voxels, the model's and the grid in between, and what to do about it."""

    def shown(numbers: Sequence[float]) -> str:
        return " x ".join(_short(n) if isinstance(n, int) else f"{n:g}" for n in numbers)

    model = plan.spacing_mm if len(plan.spacing_mm) == 3 else (spacing_mm[0], *plan.spacing_mm)
    advice = "raise --memory-limit or use a machine with more memory"
    if max(a / b for a, b in zip(size.grid, size.transposed, strict=True)) > _ODD_FACTOR:
        advice = "is the unit of the voxel size in its header right?"
    if min(model) < _SMALLEST_MM:
        advice = "no scan has such voxels: is the model's plan the file that nnU-Net wrote?"
    return (
        f"its {shown(shape)} voxels of {shown(spacing_mm)} mm become {shown(size.grid)} of the model's "
        f"{shown(model)} mm (z, y, x); {advice}"
    )


@dataclass(frozen=True)
class _Sizes:
    """Numbers of voxels of one case."""

    voxels: int
    channels: int
    """Of the scan."""
    inputs: int
    """Of the network's input before windows are cut: of a cascade one more, which holds labels."""
    transposed: list[int]
    """Shape in the network's order of axes."""
    grid: list[int]
    """The network's grid."""
    patch: tuple[int, ...]
    padded: list[int]
    """The grid, padded to the patch."""

    @staticmethod
    def of(shape: tuple[int, int, int], spacing_mm: tuple[float, ...], plan: Plan) -> _Sizes:
        transposed = [shape[axis] for axis in plan.transpose]
        spacing = [spacing_mm[axis] for axis in plan.transpose]
        target = plan.spacing_mm if len(plan.spacing_mm) == 3 else (spacing[0], *plan.spacing_mm)
        grid = [max(1, n) for n in new_shape(transposed, spacing, target)]
        patch = plan.patch if len(plan.patch) == 3 else (1, *plan.patch)
        padded = [max(n, p) for n, p in zip(grid, patch, strict=True)]
        voxels = shape[0] * shape[1] * shape[2]
        channels = len(plan.channels)
        inputs = channels + (plan.previous is not None)
        return _Sizes(voxels, channels, inputs, transposed, grid, patch, padded)

    def input_bytes(self, grid: list[int]) -> int:
        """Bytes of the network's input on a grid."""
        return 4 * self.inputs * grid[0] * grid[1] * grid[2]

    @property
    def stored_plane(self) -> int:
        """Voxels of one plane of the output."""
        return self.transposed[1] * self.transposed[2]


def _whole_volume_bytes(
    size: _Sizes, raw: int, mask: int, plan: Plan, *, dicom_seg: bool, ending: str
) -> int:
    """The peak of the steps that do not depend on row ranges: read, preprocess, write."""
    # one channel is unpacked and converted at a time; ITK holds all of a file, up to float64
    unpacked = 8 * size.channels if ending in (".mha", ".nrrd", ".mhd", ".nhdr") else 4
    read = raw + unpacked * size.voxels
    same_depth = size.transposed[0] == size.grid[0]
    planes = 0 if same_depth else 4 * size.transposed[0] * size.grid[1] * size.grid[2]
    inside = 5 * size.voxels if any(channel.masked for channel in plan.channels) else 0
    if plan.previous is not None:
        inside = mask + _labels_bytes(size, len(plan.previous.labels))
    # highdicom holds a mask several times, of regions each
    copies = 11 if plan.regions is None else 11 + plan.heads
    write = raw + (copies if dicom_seg and ending == ".dcm" else 4) * mask + CHUNK_BYTES
    return max(read, raw + size.input_bytes(size.grid) + planes + inside + CHUNK_BYTES, write)


def _labels_bytes(size: _Sizes, labels: int) -> int:
    """The peak of nnU-Net's resampling of labels: float64 on both grids, in torch float16 of each label."""
    return 33 * size.voxels + max(32, 2 * labels + 16) * math.prod(size.grid)
