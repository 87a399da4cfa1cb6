"""Reorientation of arrays for models that were trained on reoriented ones, and back for the mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from dinomed3d.inference.io.grid import Grid
from dinomed3d.inference.patient_axes import LPS_TO_RAS

_OPPOSITE = dict(zip("LRPAIS", "RLAPSI", strict=True))


@dataclass(frozen=True, kw_only=True)
class Reorientation:
    """A permutation of a volume's axes and flips after it; values are never interpolated."""

    axes: tuple[int, int, int]
    """Which axis (of z, y, x = 0, 1, 2) becomes the first, second, third."""
    flipped: tuple[bool, bool, bool]
    """Which of the new axes run backwards."""

    @staticmethod
    def to(
        letters: str, grid: Grid, *, like: Literal["nibabel", "itk"] = "nibabel"
    ) -> Reorientation:
        """The reorientation after which x, y, z point mainly to these three directions.

        Args:
            letters: Such as `RAS`: x to the right, y to anterior, z to superior.
            grid: Of the stored volume.
            like: Whose rule for oblique axes: near 45 degrees nibabel (`io_orientation`) and ITK
                (`DICOMOrient`) can differ.

        Raises:
            ValueError: `letters` are not one of L R, one of P A and one of I S.
        """
        stored = grid.orientation if like == "nibabel" else itk_letters(grid)
        sides = {frozenset((letter, _OPPOSITE.get(letter, ""))) for letter in letters}
        if len(letters) != 3 or sides != {frozenset("LR"), frozenset("PA"), frozenset("IS")}:
            raise ValueError(
                f"Reorientation.to: 'letters' must be three directions such as RAS, got {letters!r}"
            )
        axes, flipped = [], []
        for letter in reversed(letters):  # arrays are (z, y, x)
            x_first = next(i for i, own in enumerate(stored) if own in (letter, _OPPOSITE[letter]))
            axes.append(2 - x_first)
            flipped.append(stored[x_first] != letter)
        return Reorientation(
            axes=(axes[0], axes[1], axes[2]), flipped=(flipped[0], flipped[1], flipped[2])
        )

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """The stored volume (..., Z, Y, X) reoriented, without a copy."""
        lead = array.ndim - 3
        transposed = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        return transposed[self._index()]

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """Back to the stored order of voxels, without a copy."""
        lead = array.ndim - 3
        straight = array[self._index()]
        return straight.transpose(
            *range(lead), *(lead + self.axes.index(axis) for axis in range(3))
        )

    def spacing(self, spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """(z, y, x) of the stored volume -> of the reoriented one; also for shapes."""
        first, second, third = (spacing_mm[axis] for axis in self.axes)
        return first, second, third

    def _index(self) -> tuple[Any, ...]:
        return (..., *(slice(None, None, -1 if flip else 1) for flip in self.flipped))


def itk_letters(grid: Grid) -> str:
    """The directions of x, y, z as ITK names them."""
    direction = (LPS_TO_RAS @ grid.matrix)[:3, :3]
    direction /= np.linalg.norm(direction, axis=0)
    order = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(
        direction.ravel().tolist()
    )
    return str(order)
