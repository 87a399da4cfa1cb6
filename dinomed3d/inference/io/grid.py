"""The grid of a volume: where its voxels lie, and the file form of a mask on the same grid."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.runtime.messages.counted import sides

FLAT_SPACING = 999
"""A 2D file's slice is this many times thicker than its larger pixel side, as in nnU-Net."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Voxel positions, and the file form of a mask that lies on them."""

    shape_zyx: tuple[int, int, int]
    """Shape of the arrays, in the stored order of voxels."""
    spacing_mm: tuple[float, float, float]
    """Voxel spacing (z, y, x); z of a 2D file is 999 times the larger one."""
    affine: tuple[tuple[float, ...], ...]
    """4 rows of 4: voxel (x, y, z) -> mm, RAS+."""
    stored_shape: tuple[int, ...]
    """Shape of the mask in its file, x first: 2 axes for a 2D file, more for trailing ones."""
    ending: str
    """Format of the mask: `.nii`, `.nii.gz`, `.mha` or `.nrrd`."""
    header_spacing: tuple[float, float, float] | None = None
    """Voxel spacing (z, y, x) in the numbers of a NIfTI header whose unit is not mm; None where it is."""
    header: str | None = None
    """The geometry in the file's own terms, base64: NIfTI header bytes, or JSON for ITK's formats.

    It holds nothing else of the header, least of all its free text.
    """
    slice_places: tuple[float, ...] = ()
    """Where the scan's own slices lie along z, in voxels; empty where they are the grid's."""

    @property
    def slices(self) -> list[int]:
        """Of a scan with two slice increments: the grid's slice that is nearest to each of its own."""
        return [min(int(place + 0.5), self.shape_zyx[0] - 1) for place in self.slice_places]

    @property
    def orientation(self) -> str:
        """The main directions of x, y, z, such as `LPS` for left, posterior, superior."""
        return "".join(nib.aff2axcodes(self.matrix))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """`affine` as (4, 4) array."""
        return np.array(self.affine)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, ml; of a 2D file as if its slice were 1 mm thick."""
        if len(self.stored_shape) == 2:
            return self.spacing_mm[1] * self.spacing_mm[2] / 1000
        return float(abs(np.linalg.det(self.matrix[:3, :3]))) / 1000

    def to_json(self) -> dict[str, Any]:
        """As data for JSON."""
        return dict(self.__dict__)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Grid:
        """Back from JSON, which has lists for tuples, equal to what it was."""
        return Grid(**{name: _tuples(value) for name, value in dict(content).items()})


@dataclass(kw_only=True)
class Volume:
    """The channels of one case on one grid."""

    channels: list[NDArray[Any]]
    """Each (Z, Y, X); as stored, but float32 where values are scaled or wider than 32 bits."""
    grid: Grid
    """The grid of all channels."""
    notes: list[str] = field(default_factory=list)
    """What was unusual and how it was handled, one line each."""


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def mask_shape(stored: tuple[int, ...], name: str, *, channels: int = 1) -> tuple[int, ...]:
    """The shape of the mask of an image file, if this file can be one image.

    Args:
        stored: The file's shape, x first, channels last.
        name: The file, for messages.
        channels: How many the file must hold; more than one along the last of four axes.

    Returns:
        `stored`, without the axis of channels where it has one.

    Raises:
        CaseError: No voxels, a wrong number of axes, or more than the channels along the fourth.
    """
    shape = " x ".join(map(str, stored))
    if not stored or min(stored) < 1:
        raise CaseError(f"{name}: must hold voxels, its shape is {shape or 'empty'}")
    if channels > 1 and len(stored) == 4 and stored[3] == channels:
        return stored[:3]
    if channels > 1:
        raise CaseError(
            f"{name}: alone it must be 4D with {channels} channels along the fourth axis, "
            f"its shape is {shape}; give a file for each channel"
        )
    if len(stored) < 2:
        raise CaseError(f"{name}: must be an image of two or three axes, its shape is {shape}")
    if any(length > 1 for length in stored[3:]):
        axis = next(i for i, length in enumerate(stored) if i > 2 and length > 1)
        raise CaseError(
            f"{name}: must be one 3D image, its shape is {shape}: its axis {axis + 1} holds {stored[axis]} volumes "
            "(time points or directions?); save each as a file of its own, for example with fslsplit, nibabel "
            "(four_to_three) or 3D Slicer"
        )
    return stored


def array_shape(stored: tuple[int, ...]) -> tuple[int, int, int]:
    """The array's shape (z, y, x) for a mask's file shape (x first, 2 or more axes)."""
    x, y, z = (*stored, 1)[:3]
    return z, y, x


def array_spacing(spacing: tuple[float, ...]) -> tuple[float, float, float]:
    """(z, y, x) in mm for a file's spacing (x, y[, z])."""
    z = spacing[2] if len(spacing) > 2 else max(spacing) * FLAT_SPACING
    return z, spacing[1], spacing[0]


def checked_affine(
    affine: NDArray[np.float64], spacing_mm: tuple[float, ...], name: str
) -> tuple[tuple[tuple[float, ...], ...], list[str]]:
    """An affine that can place voxels and agrees with the spacing, as rows.

    Args:
        affine: (4, 4) voxel (x, y, z) -> mm.
        spacing_mm: (x, y, z), or (x, y) of a 2D file: its third column is made the unit normal
            where it has none.
        name: The file, for messages.

    Returns:
        The rows, and a note where axes are not at right angles.

    Raises:
        CaseError: Not finite, singular, or its steps differ from the spacing by more than 1 %.
    """
    affine = np.array(affine, np.float64)
    if not np.isfinite(affine).all():
        raise CaseError(f"{name}: its affine must be finite, it holds NaN or infinity")
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    for axis, spacing, step in zip("xyz", spacing_mm, steps, strict=False):
        if abs(step - spacing) > 0.01 * spacing:
            raise CaseError(
                f"{name}: its header disagrees with itself: the voxel size along {axis} is "
                f"{spacing:.6g} mm, but {step:.6g} mm by its affine; correct the wrong one"
            )
    if len(spacing_mm) == 2 and not _invertible(affine):
        affine[:3, 2] = np.cross(affine[:3, 0] / steps[0], affine[:3, 1] / steps[1])
    if not _invertible(affine):
        raise CaseError(f"{name}: its affine is singular: two of its axes point the same way")
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosine = max(abs(unit[:, a] @ unit[:, b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    notes = []
    if cosine > 0.01:
        angle = np.degrees(np.arccos(min(cosine, 1.0)))
        notes.append(f"axes are not at right angles ({angle:.1f} degrees between two of them)")
    return tuple(tuple(float(value) for value in row) for row in affine), notes


def _invertible(affine: NDArray[np.float64]) -> bool:
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(steps.min() > 0 and abs(np.linalg.det(affine[:3, :3] / steps)) > 1e-4)


def check_spacing(spacing: tuple[float, ...], name: str) -> None:
    """Refuse voxel sizes (x, y[, z]) that are zero, negative, NaN or infinite.

    Raises:
        CaseError: One of them is.
    """
    if not all(np.isfinite(value) and value > 0 for value in spacing):
        values = sides(spacing)
        raise CaseError(
            f"{name}: its voxel size must be positive, the header says {values} mm (x, y, z); "
            "correct the header"
        )


def corner_distance_mm(one: Grid, other: Grid) -> float:
    """How far apart two grids of one shape place the same corner of the volume, at most, mm."""
    z, y, x = one.shape_zyx
    corners = np.array(
        [(*xyz, 1.0) for xyz in itertools.product((0, x - 1), (0, y - 1), (0, z - 1))]
    )
    return float(np.linalg.norm(corners @ (one.matrix - other.matrix).T, axis=1).max())
