"""A synthetic dataset in nnU-Net's raw format: organs with texture, tubes and thin walls.

All positions and lengths are in millimetres, in the order (z, y, x); z is the slice axis.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError

LABELS = {"background": 0, "organ": 1, "vessel": 2, "wall": 3}

CAVITY = 18
"""Brightness of the cavity inside the wall, and of the cyst."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class PhantomSpec:
    """How many cases, on which grid, from which seed."""

    seed: int = 0
    """Case k of one seed is the same whatever the number of cases."""
    training_cases: int = 12
    """Number of training cases, at least 5, since nnU-Net splits them into 5 folds."""
    test_cases: int = 4
    shape_zyx: tuple[int, int, int] = (16, 40, 40)
    """Voxels."""
    spacing_mm: Triple = (3.0, 1.5, 1.5)
    """Voxel size (z, y, x)."""


def phantom_case(spec: PhantomSpec, index: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Draw one case.

    Anatomy scales with the field of view and varies in place, size and tilt between cases.
    Brightness alone does not tell the labels: the organ differs from the wall by its texture more than
    by its brightness, a cyst without label is as dark as the cavity inside the wall, and a bias field and
    noise lie over everything. All of it can be learned in the minutes of a demonstration; a ball as bright
    as the vessel, which only its ends in neighbouring slices tell from one, could not.

    Args:
        spec: grid and seed.
        index: number of the case, >= 0; training cases come first.

    Returns:
        (Z, Y, X) image, arbitrary units; (Z, Y, X) labels as in ``LABELS``.
    """
    scene = _Scene(spec, np.random.default_rng((spec.seed, index)))
    scene.draw_organ()
    cavity = scene.draw_wall()
    scene.draw_vessel()
    scene.draw_cyst(cavity)
    bias = np.exp(0.12 * scene.waves(60))
    noisy = scene.image * bias + scene.rng.normal(0, 7, spec.shape_zyx)
    return np.round(noisy).astype(np.int16), scene.labels


class _Scene:
    """Image and labels of one case while its structures are drawn."""

    def __init__(self, spec: PhantomSpec, rng: np.random.Generator) -> None:
        """Start with a body of soft tissue."""
        self.rng = rng
        self.extent = np.multiply(spec.shape_zyx, spec.spacing_mm)
        axes = [
            (np.arange(n) + 0.5) * step
            for n, step in zip(spec.shape_zyx, spec.spacing_mm, strict=True)
        ]
        self.zyx = np.stack(np.meshgrid(*axes, indexing="ij"))  # (3, Z, Y, X) voxel centres, mm
        self.scale = float(self.extent[1:].min()) / 64.0  # lengths are for a 64 mm wide field
        size = (1e9, 29 * self.scale, 30 * self.scale)
        body = _radius(self.zyx, self.extent / 2, size, tilt=0.0) < 1
        self.image = np.where(body, 40 + 6 * self.waves(30), 2.0)
        self.labels = np.zeros(spec.shape_zyx, np.uint8)

    def waves(self, wavelength_mm: float) -> Floats:
        """A random smooth field over the volume."""
        return _waves(self.rng, self.zyx, wavelength_mm=wavelength_mm * self.scale)

    def near(self, fraction: Triple, jitter: float = 0.03) -> Floats:
        """A random position close to a fraction of the field of view, mm."""
        return self.extent * (np.asarray(fraction) + self.rng.uniform(-jitter, jitter, 3))

    def draw_organ(self) -> None:
        """An ellipsoid with a wavy surface, filled with fine texture."""
        size = self.scale * self.rng.uniform(0.85, 1.15, 3) * (17, 13, 10)
        centre, tilt = self.near((0.5, 0.33, 0.33)), self.rng.uniform(-0.6, 0.6)
        organ = _radius(self.zyx, centre, size, tilt=tilt)
        inside = organ + 0.05 * self.waves(14) < 1
        self.image[inside] = 88 + (14 * self.waves(4.5))[inside]
        self.labels[inside] = LABELS["organ"]

    def draw_wall(self) -> Mask:
        """A thin shell around a dark cavity; gives the voxels of the cavity."""
        size = self.scale * self.rng.uniform(0.9, 1.1, 3) * (18, 13, 12)
        centre, tilt = self.near((0.5, 0.64, 0.68)), self.rng.uniform(-0.6, 0.6)
        outer = _radius(self.zyx, centre, size, tilt=tilt) < 1
        cavity = _radius(self.zyx, centre, size - 2.6 * self.scale, tilt=tilt) < 1
        self.image[outer] = 80
        self.image[cavity] = CAVITY
        self.labels[outer] = LABELS["wall"]
        self.labels[cavity] = LABELS["background"]
        return cavity

    def draw_vessel(self) -> None:
        """A tube that winds from the first slice to the last."""
        along = np.linspace(-0.05, 1.05, 120)
        swing, phase = self.rng.uniform(0.06, 0.12, 2), self.rng.uniform(0, 2 * np.pi, 2)
        start = self.near((0.0, 0.30, 0.70)) / self.extent
        y = start[1] + swing[0] * np.sin(2 * np.pi * along + phase[0])
        x = start[2] + swing[1] * np.cos(2 * np.pi * along + phase[1])
        line = np.stack([along, y, x]) * self.extent.reshape(3, 1)
        vessel = _distance_to_line(self.zyx, line) < self.rng.uniform(2.8, 3.8) * self.scale
        self.image[vessel] = 130
        self.labels[vessel] = LABELS["vessel"]

    def draw_cyst(self, cavity: Mask) -> None:
        """A ball as dark as the cavity, without wall and label."""
        centre = self.near((0.5, 0.72, 0.26), 0.08)
        cyst = _radius(self.zyx, centre, (5 * self.scale,) * 3, tilt=0.0) < 1
        self.image[cyst & (self.labels == 0) & ~cavity] = CAVITY


def write_phantom(folder: Path, spec: PhantomSpec) -> list[str]:
    """Write the dataset: ``imagesTr``, ``labelsTr``, ``imagesTs``, ``labelsTs``, ``dataset.json``.

    Args:
        folder: nnU-Net's ``DatasetXXX_Name`` folder; must not exist yet.
        spec: what to draw.

    Returns:
        Names of the test cases, without channel number and file ending.

    Raises:
        UserError: the folder exists.
    """
    if folder.exists():
        raise UserError(f"'{folder}' exists already; name a folder that does not")
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / name).mkdir(parents=True)
    names = []
    for index in range(spec.training_cases + spec.test_cases):
        part = "Tr" if index < spec.training_cases else "Ts"
        name = f"phantom_{index:03d}"
        image, labels = phantom_case(spec, index)
        _write(folder / f"images{part}" / f"{name}_0000.nii.gz", image, spec.spacing_mm)
        _write(folder / f"labels{part}" / f"{name}.nii.gz", labels, spec.spacing_mm)
        if part == "Ts":
            names.append(name)
    description = {
        "name": folder.name,
        "description": "synthetic phantom of dinomed3d",
        "channel_names": {"0": "synthetic"},
        "labels": LABELS,
        "numTraining": spec.training_cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2) + "\n")
    return names


def _write(path: Path, array: NDArray[np.int16] | NDArray[np.uint8], spacing_mm: Triple) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])  # SimpleITK counts x, y, z
    sitk.WriteImage(image, str(path))


def _radius(zyx: Floats, centre: Floats, radii: Floats | Triple, *, tilt: float) -> Floats:
    """Distance from an ellipsoid's centre in units of its radii: < 1 inside.

    ``tilt`` rotates it in plane, in radians.
    """
    z, y, x = zyx - centre.reshape(3, 1, 1, 1)
    cosine, sine = np.cos(tilt), np.sin(tilt)
    rotated = np.stack([z, cosine * y + sine * x, cosine * x - sine * y])
    return np.sqrt(((rotated / np.reshape(radii, (3, 1, 1, 1))) ** 2).sum(0))


def _waves(rng: np.random.Generator, zyx: Floats, *, wavelength_mm: float) -> Floats:
    """A random smooth field with mean about 0 and deviation about 1: a sum of plane waves."""
    count = 24
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    number = 2 * np.pi * direction / (wavelength_mm * rng.uniform(0.8, 1.25, (count, 1)))
    phase = rng.uniform(0, 2 * np.pi, count)
    field = np.zeros(zyx.shape[1:])
    for k, shift in zip(number, phase, strict=True):
        field += np.cos(np.tensordot(k, zyx, axes=1) + shift)
    return field * np.sqrt(2 / count)


def _distance_to_line(zyx: Floats, line: Floats) -> Floats:
    """Distance (mm) of every voxel centre to the nearest of the line's points (3, N)."""
    nearest = np.full(zyx.shape[1:], np.inf)
    for point in line.T:
        nearest = np.minimum(nearest, ((zyx - point.reshape(3, 1, 1, 1)) ** 2).sum(0))
    return np.sqrt(nearest)
