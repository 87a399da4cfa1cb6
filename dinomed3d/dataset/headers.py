"""Headers of image files: where their voxels lie, read without the voxels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Header:
    """What a file says of its voxels; x first."""

    shape: tuple[int, ...]
    """Voxels along each axis."""
    spacing_mm: tuple[float, ...]
    """Voxel sides."""
    origin_mm: tuple[float, ...]
    """Position of the first voxel."""
    direction: tuple[float, ...]
    """Directions of the axes, row by row."""
    components: int
    """Values of a voxel."""

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    @property
    def corners_mm(self) -> np.ndarray:
        """Positions of the outermost voxels, (2 ** axes, axes)."""
        axes = len(self.shape)
        matrix = np.reshape(self.direction, (axes, axes)) * np.array(self.spacing_mm)
        ends = itertools.product(*((0, n - 1) for n in self.shape))
        return np.array([matrix @ np.array(end) for end in ends]) + np.array(self.origin_mm)


def read_header(path: Path) -> Header:
    """The header of a file, without its voxels.

    Raises:
        RuntimeError: SimpleITK cannot read it.
    """
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return Header(
        tuple(reader.GetSize()),
        tuple(reader.GetSpacing()),
        tuple(reader.GetOrigin()),
        tuple(reader.GetDirection()),
        reader.GetNumberOfComponents(),
    )
