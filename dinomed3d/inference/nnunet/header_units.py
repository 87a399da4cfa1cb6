"""The voxel size in the numbers that a model was trained with: two of nnU-Net's readers ignore a NIfTI header's unit.

ITK converts metres and micrometres to mm; nibabel hands out the numbers as they are stored, 1000 for a voxel of
1000 micrometres. The spacing in a plan is in whatever the reader of its training gave.
"""

from __future__ import annotations

import numpy as np

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io.grid import Grid
from dinomed3d.inference.nnunet.plan import Plan
from dinomed3d.runtime.messages.counted import sides

_LARGEST_FACTOR = 30
"""A voxel size that is off by more than this factor along all axes is in another unit than the plan's."""


def spacing_as_trained(grid: Grid, plan: Plan) -> tuple[float, float, float]:
    """Voxel spacing (z, y, x) of a scan as the reader of the model's training would give it.

    Args:
        grid: of the scan.
        plan: of the model.

    Raises:
        CaseError: the reader ignores the unit of the scan's header, and the plan's spacing is in another one.

    Source: nnunetv2 NibabelIO and NibabelIOWithReorient (`get_zooms`), SimpleITKIO.
    """
    numbers = grid.header_spacing
    if plan.unitless_reader is None or numbers is None:
        return grid.spacing_mm
    ordered = [numbers[axis] for axis in plan.transpose][-len(plan.spacing_mm) :]
    ratio = np.exp(np.log(np.divide(ordered, plan.spacing_mm)).mean())
    if not 1 / _LARGEST_FACTOR < ratio < _LARGEST_FACTOR:
        raise CaseError(
            f"its header gives voxels of {sides(numbers)} in units of {grid.spacing_mm[0] / numbers[0]:.3g} mm, and "
            f"the model's reader {plan.unitless_reader} takes such numbers as they are, as in training, where they "
            f"were about {sides(plan.spacing_mm)}: save the scan in the unit of the training images"
        )
    return numbers


def note_on_units(grid: Grid, plan: Plan) -> list[str]:
    """What a person should know about the unit, if anything."""
    if plan.unitless_reader is None or grid.header_spacing is None:
        return []
    return [
        f"resampled by the numbers of its header, {sides(grid.header_spacing)} (z, y, x), as the reader of the "
        f"model's training ({plan.unitless_reader}) takes them"
    ]
