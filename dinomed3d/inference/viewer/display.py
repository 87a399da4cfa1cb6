"""A scan and its mask as a browser shows them: NIfTI of one simple form, on one grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io.image import Grid, Volume, check_mask, read_mask
from dinomed3d.inference.io.label_table import value_names
from dinomed3d.inference.io.pictures import ENDINGS as PICTURES
from dinomed3d.inference.palette import rgb
from dinomed3d.inference.report.preview import centre_of_foreground, grey_window, sample_steps

MOST_VOXELS = 2**27
"""More voxels (512 x 512 x 512) than a graphics card takes twice in four bytes each are thinned out."""
LONGEST_AXIS = 2048
"""Longest axis of a volume that browsers draw everywhere."""
_SHOWN = (np.uint8, np.int16)
"""Types of voxels that a browser is given; what fits neither becomes float32."""


@dataclass(frozen=True, kw_only=True)
class Display:
    """What a browser gets of a case."""

    channels: tuple[NDArray[Any], ...]
    """Each (Z, Y, X), of all voxels or of every few."""
    mask: NDArray[Any]
    """On the same voxels, uint8 or uint16."""
    affine: NDArray[np.float64]
    """Voxel (x, y, z) of these arrays -> mm, RAS."""
    to_voxel: NDArray[np.float64]
    """(3, 4): mm -> voxel (x, y, z) of the file."""
    steps: tuple[int, int, int]
    """Of how many voxels along x, y, z one is shown."""
    is_flat: bool
    """Whether it is a single slice, with nothing to see from the side."""
    has_directions: bool
    """Whether its axes are directions in a patient; those of pictures are not."""
    volumes_ml: Mapping[int, float]
    """Value of the mask -> volume of its voxels, ml."""

    @staticmethod
    def of(volume: Volume, mask: NDArray[Any]) -> Display:
        """Thin out what a browser could not show.

        Args:
            volume: the scan.
            mask: on its grid.
        """
        steps = sample_steps(mask.shape, MOST_VOXELS, longest_axis=LONGEST_AXIS)
        part = tuple(slice(None, None, step) for step in steps)
        x, y, z = steps[::-1]
        counts = np.bincount(mask.ravel())
        return Display(
            channels=tuple(channel[part] for channel in volume.channels),
            mask=mask[part],
            affine=volume.grid.matrix @ np.diag([x, y, z, 1.0]),
            to_voxel=np.linalg.inv(volume.grid.matrix)[:3].astype(np.float64),
            steps=(x, y, z),
            is_flat=mask.shape[0] == 1,
            has_directions=volume.grid.ending not in PICTURES,
            volumes_ml={
                value: float(count) * volume.grid.voxel_ml for value, count in enumerate(counts)
            },
        )

    def windows(self) -> list[list[float]]:
        """Of each channel the intensities that are shown black and white: percentiles 1 and 99."""
        return [list(grey_window(channel)) for channel in self.channels]

    def centre_mm(self) -> list[float]:
        """Where to look first: the middle of what is labelled, mm in RAS."""
        z, y, x = centre_of_foreground(self.mask)
        return [float(value) for value in (self.affine @ (x, y, z, 1.0))[:3]]


def read_shown_mask(path: Path, grid: Grid) -> NDArray[Any]:
    """A mask on the grid of its scan, as it lies there now, also corrected by hand.

    Raises:
        CaseError: It cannot be read, or lies on another grid.
    """
    problem = check_mask(path, grid)
    if problem is not None:
        raise CaseError(problem)
    return read_mask(path, grid)


def as_nifti(voxels: NDArray[Any], affine: NDArray[np.float64]) -> tuple[bytes, memoryview]:
    """A volume as NIfTI-1: its header, and its voxels.

    Args:
        voxels: (Z, Y, X).
        affine: (4, 4), voxel (x, y, z) -> mm, RAS.
    """
    kept = _shown_type(voxels)
    stored = np.ascontiguousarray(voxels, kept.newbyteorder("<"))
    header = nib.Nifti1Header(endianness="<")
    header.set_data_shape(voxels.shape[::-1])
    header.set_data_dtype(kept)
    header.set_xyzt_units("mm")
    header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    header.set_sform(affine, code=1)
    header["vox_offset"] = header.sizeof_hdr + 4
    header["magic"] = b"n+1"
    header["scl_slope"] = 1
    header["scl_inter"] = 0
    return header.binaryblock + bytes(4), stored.reshape(-1).view(np.uint8).data


def _shown_type(voxels: NDArray[Any]) -> np.dtype[Any]:
    """The smallest type that holds all values."""
    if voxels.dtype.kind in "iu":
        low, high = int(voxels.min()), int(voxels.max())
        for kind in _SHOWN:
            limits = np.iinfo(kind)
            if limits.min <= low and high <= limits.max:
                return np.dtype(kind)
    return np.dtype(np.float32)


def shown_labels(
    labels: Mapping[str, Mapping[str, Any]], volumes_ml: Mapping[int, float]
) -> list[dict[str, Any]]:
    """Name and colour, as in previews and colour tables, and volume of each value of a mask.

    Args:
        labels: of a record: name -> value or values.
        volumes_ml: value -> volume; one that no label has is listed by its number.
    """
    names = value_names({name: entry["value"] for name, entry in labels.items()})
    names |= {
        value: f"value {value}"
        for value, ml in volumes_ml.items()
        if ml and value not in (0, *names)
    }
    return [
        {"value": value, "name": name, "rgb": rgb(value), "ml": volumes_ml.get(value, 0.0)}
        for value, name in sorted(names.items())
    ]
