"""Memory and disk that preprocessing will take, computed from headers, compared with what there is."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinomed3d.dataset.findings import Finding
from dinomed3d.dataset.headers import Header
from dinomed3d.runtime.hardware.memory import free_bytes

GIB = 2**30
PROCESSES = 4
"""Processes of nnUNetv2_preprocess for 3d_fullres, where -np does not say otherwise."""
WORK_BYTES = 24
"""Bytes for each voxel of one channel while it is resampled: three copies in double precision."""
ANISOTROPY = 3
"""From this ratio of voxel sides on, nnU-Net takes the 10th percentile of the largest side and no median."""


def check_resources(
    headers: Mapping[str, Header],
    *,
    channels: int,
    preprocessed: Path | None,
    spacing_mm: Sequence[float] | None,
) -> list[Finding]:
    """Compare the largest case with the memory, and all cases with the disk.

    Args:
        headers: of training cases.
        channels: files of a case.
        preprocessed: the folder nnUNet_preprocessed, if it is set; None: the disk is not looked at.
        spacing_mm: that the plan resamples to, in the order of the files' axes (x first); None: what nnU-Net's
            rule would take.
    """
    three = {name: h for name, h in headers.items() if len(h.shape) >= 3}
    if not three:
        return []
    sides = np.array([h.spacing_mm[:3] for h in three.values()])
    shapes = np.array([h.shape[:3] for h in three.values()], float)
    target = usual_spacing(sides) if spacing_mm is None else np.array(spacing_mm)
    before, after = shapes.prod(1), (shapes * sides / target).round().clip(1).prod(1)
    need = 4 * channels * (before + after) + WORK_BYTES * np.maximum(before, after)
    largest = int(need.argmax())
    findings = [
        _memory(list(three)[largest], shapes[largest], sides[largest], target, float(need[largest]))
    ]
    if preprocessed is not None:
        findings.append(_disk(preprocessed, float(after.sum()) * (4 * channels + 1)))
    return findings


def usual_spacing(sides_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """The spacing that nnU-Net's planner takes for 3d_fullres.

    Args:
        sides_mm: (cases, 3) voxel sides.

    Source: nnunetv2 default_experiment_planner.determine_fullres_target_spacing, without its rule for shapes.
    """
    target = np.median(sides_mm, axis=0)
    worst = int(target.argmax())
    others = np.delete(target, worst)
    if target[worst] > ANISOTROPY * others.max():
        target[worst] = max(np.percentile(sides_mm[:, worst], 10), others.max() + 1e-5)
    return target


def _memory(
    case: str,
    shape: NDArray[np.float64],
    sides: NDArray[np.float64],
    target: NDArray[np.float64],
    need: float,
) -> Finding:
    free = free_bytes()
    after = (shape * sides / target).round().clip(1)
    says = (
        f"the largest case is {case}: {_times(shape)} voxels of {_times(sides)} mm, {_times(after)} at "
        f"{_times(target)} mm; a process of preprocessing takes about {_size(need)} for it, and {_size(free)} are free"
    )
    fit = int(free // need)
    if fit < 1:
        return Finding(
            topic="memory",
            says=says,
            state="error",
            fix="is its spacing right? Otherwise crop it, or plan with a coarser -overwrite_target_spacing",
        )
    if fit < PROCESSES:
        fix = f"nnUNetv2_plan_and_preprocess ... -np {fit}, if several such cases come together"
        return Finding(topic="memory", says=says, state="note", fix=fix)
    return Finding(topic="memory", says=says)


def _times(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _size(number: float) -> str:
    """Bytes as text."""
    return f"{number / GIB:.3g} GiB" if number >= GIB / 10 else f"{number / 2**20:.2g} MiB"


def _disk(folder: Path, need: float) -> Finding:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    says = (
        f"preprocessed cases take at most {_size(need)} for 3d_fullres and as much again for 2d (compressed, "
        f"about half); {folder} has {_size(free)} free"
    )
    if need > free:
        fix = "make room, or set nnUNet_preprocessed to a larger disk"
        return Finding(topic="disk", says=says, state="error", fix=fix)
    return Finding(topic="disk", says=says)
