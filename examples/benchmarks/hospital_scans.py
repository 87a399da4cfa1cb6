"""Seeded synthetic scans for `hospital.py`: bodies with smooth organs, one label per organ."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

AIR_HU, TISSUE_HU, NOISE_HU = -1000, 0, 10


@dataclass(frozen=True)
class Organ:
    """An ellipsoid; centre and radii relative to the volume's extent (z, y, x)."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    label: int
    hu: float


def atlas(labels: int, *, pieces: int, seed: int) -> list[Organ]:
    """Organs spread over a body: several pieces per label, all of one intensity."""
    rng = np.random.default_rng(seed)
    count = labels * pieces
    radius = 0.3 / count ** (1 / 3)  # together about a seventh of the body
    centres: list[NDArray[np.float64]] = []
    for _ in range(count):
        candidates = 0.5 + rng.uniform(-1, 1, (4000, 3)) * [0.48, 0.36, 0.40]
        inside = (((candidates - 0.5) / [0.6, 0.36, 0.40]) ** 2).sum(1) < (1 - radius) ** 2
        candidates = candidates[inside]
        apart = [((candidates - c) ** 2).sum(1) for c in centres] or [np.ones(len(candidates))]
        centres.append(candidates[np.argmax(np.min(apart, axis=0))])
    intensities = rng.permutation(np.linspace(100, 1400, labels))
    organs = []
    for number, centre in enumerate(centres):
        z, y, x = radius * rng.uniform(0.8, 1.25, 3)
        label = number % labels
        place = (float(centre[0]), float(centre[1]), float(centre[2]))
        organs.append(Organ(place, (z, y, x), label + 1, float(intensities[label])))
    return organs


def scan(
    shape: Sequence[int], spacing_mm: Sequence[float], organs: Sequence[Organ], *, seed: int
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """One patient: organs slightly moved and resized, blurred edges, noise.

    Returns:
        Image and labels, (Z, Y, X).
    """
    rng = np.random.default_rng(seed)
    image = np.full(shape, AIR_HU, np.float32)
    labels = np.zeros(shape, np.uint8)
    _paint(image, Organ((0.5, 0.5, 0.5), (0.9, 0.42, 0.46), 0, TISSUE_HU), TISSUE_HU)
    for organ in organs:
        centre = np.array(organ.centre) + rng.normal(0, 0.01, 3)
        radii = np.array(organ.radii) * rng.uniform(0.9, 1.1, 3)
        one = replace(organ, centre=tuple(centre), radii=tuple(radii))
        _paint(image, one, organ.hu + rng.normal(0, 5))
        _paint(labels, one, organ.label)
    image = gaussian_filter(image, [0.7 / mm for mm in spacing_mm])
    image += NOISE_HU * rng.standard_normal(shape, np.float32)
    return image.round().clip(-1024, 3071).astype(np.int16), labels


def _paint(array: NDArray[np.generic], organ: Organ, value: float) -> None:
    """Fill an ellipsoid, within its bounding box."""
    box, axes = [], []
    for size, middle, radius in zip(array.shape, organ.centre, organ.radii, strict=True):
        start = max(0, int((middle - radius) * size))
        stop = min(size, int((middle + radius) * size) + 2)
        box.append(slice(start, stop))
        axes.append((((np.arange(start, stop) + 0.5) / size - middle) / radius) ** 2)
    inside = axes[0][:, None, None] + axes[1][:, None] + axes[2] < 1
    array[tuple(box)][inside] = value


def write_image(path: Path, array: NDArray[np.generic], spacing_mm: Sequence[float]) -> None:
    """Write (Z, Y, X) with its spacing (z, y, x) and an origin as scanners have it."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(mm) for mm in reversed(spacing_mm)])
    image.SetOrigin([-120.5, 33.25, 870.0])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), True)


def read_image(path: Path) -> tuple[NDArray[Any], tuple[float, ...]]:
    """Array (Z, Y, X) and spacing (z, y, x) in millimetres."""
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), tuple(reversed(image.GetSpacing()))


def copies(sources: Sequence[Path], folder: Path, count: int) -> None:
    """Copy the sources in turn until there are `count` images, each under its own name."""
    if folder.exists() and len(list(folder.glob("*.nii.gz"))) == count:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number in range(count):
        shutil.copyfile(sources[number % len(sources)], folder / f"case{number:03}_0000.nii.gz")
