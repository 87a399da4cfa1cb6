"""Probabilities as nnU-Net stores them, for `nnUNetv2_ensemble`: CASE.npz, and CASE.pkl with the scan's geometry."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from dinomed3d.inference.io.grid import Grid
from dinomed3d.inference.io.orientation import Reorientation, itk_letters
from dinomed3d.inference.nnunet.plan import Plan
from dinomed3d.inference.nnunet.preprocess import Prepared
from dinomed3d.inference.nnunet.probabilities import ProbabilityFile
from dinomed3d.inference.patient_axes import LPS_TO_RAS
from dinomed3d.runtime.files.atomic_files import atomic_write, new_file

_MOMENT = (1980, 1, 1, 0, 0, 0)
"""Date in the file, so that the same probabilities make the same file."""


class EnsembleFiles(ProbabilityFile):
    """Probabilities that are collected in a chunked file and written class by class in the end.

    nnU-Net stores float32 (heads, Z, Y, X) in the order of voxels in which its reader gives the scan: where the
    reader reorients scans, in that orientation.
    """

    def __init__(self, path: Path, plan: Plan, prepared: Prepared, geometry: Geometry) -> None:
        """Begin the files, under a temporary name.

        Args:
            path: ends in `.npz`.
            plan: of the model.
            prepared: the volume, for its crop.
            geometry: of the scan.
        """
        super().__init__(path, plan, prepared, geometry.to_stored, dtype=np.float32)
        self.properties = geometry.properties | {
            "shape_before_cropping": tuple(prepared.shape),
            "bbox_used_for_cropping": [[part.start, part.stop] for part in prepared.box],
            "shape_after_cropping_and_before_resampling": tuple(prepared.crop_shape),
        }

    def finish(self, on_sign: Callable[[], None] = lambda: None) -> None:
        """Write both files under their final names."""
        with new_file(self.path) as part, zipfile.ZipFile(part, "w") as archive:
            member = zipfile.ZipInfo("probabilities.npy", _MOMENT)
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as stream:
                header = {"descr": "<f4", "fortran_order": False, "shape": self.array.shape}
                npy.write_array_header_1_0(stream, header)
                for head in range(self.array.shape[0]):
                    for plane in np.ascontiguousarray(self.array[head], dtype="<f4"):
                        stream.write(plane.tobytes())
                        on_sign()
        # plain numbers, lists and texts: who reads it need not let a pickle name anything
        atomic_write(self.path.with_suffix(".pkl"), pickle.dumps(self.properties, protocol=4))
        self.discard()


class Geometry:
    """What nnU-Net's readers know of a scan when they write a mask for it."""

    def __init__(
        self, grid: Grid, turn: Reorientation | None, *, of_reader: bool, spacing: Any
    ) -> None:
        """Describe a scan.

        Args:
            grid: of the stored scan.
            turn: its reorientation for the network.
            of_reader: whether nnU-Net's reader of the model does the same, and turns masks back.
            spacing: (z, y, x) in the numbers that the model was trained with, in the stored order.
        """
        self.to_stored = None if of_reader else turn
        affine = grid.matrix
        if of_reader and turn is not None:
            affine, spacing = _turned(grid, turn), turn.spacing(tuple(spacing))
        axes = min(len(grid.stored_shape), 3)
        lps = LPS_TO_RAS @ affine
        steps = np.linalg.norm(lps[:3, :3], axis=0)
        direction = (lps[:3, :3] / steps)[:axes, :axes]
        self.properties: dict[str, Any] = {
            "sitk_stuff": {
                "spacing": tuple(steps[:axes].tolist()),
                "origin": tuple(lps[:axes, 3].tolist()),
                "direction": tuple(direction.ravel().tolist()),
                "original_orientation": itk_letters(grid),
            },
            "nibabel_stuff": {
                "original_affine": grid.matrix.tolist(),
                "reoriented_affine": affine.tolist(),
            },
            "spacing": [float(s) for s in spacing],
        }


def _turned(grid: Grid, turn: Reorientation) -> NDArray[np.float64]:
    """The affine of a reoriented scan: voxel (x, y, z) -> mm."""
    stored = grid.matrix
    affine = stored.copy()
    for axis, (own, is_flipped) in enumerate(zip(turn.axes, turn.flipped, strict=True)):
        step = stored[:3, 2 - own]  # arrays are (z, y, x)
        affine[:3, 2 - axis] = -step if is_flipped else step
        if is_flipped:
            affine[:3, 3] += step * (grid.shape_zyx[own] - 1)
    return affine
