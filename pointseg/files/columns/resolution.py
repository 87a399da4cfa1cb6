"""Positions that lie on a grid, because a file holds fewer digits of large coordinates than they need."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pointseg.scene import Scene

SAMPLE = 20_000
"""Points that are looked at."""
FEW = 20
"""Fewer points may lie on a grid by chance."""
DECIMALS = (100.0, 10.0, 1.0, 0.1)
"""Steps that numbers with few digits have."""
ROUNDING = 1e-3
"""Metres within which positions relative to an origin are multiples of a step."""


def position_steps(scene: Scene) -> NDArray[np.float64]:
    """(3,) the step between positions that a file can tell apart, along each axis; 0: no such step was seen.

    Float32 holds 24 bits: of northings of UTM (5e6 m) that leaves half a metre. Text with six digits leaves ten.

    Args:
        scene: as its file has it; axes without an origin have small coordinates, and are not looked at.
    """
    steps = np.zeros(3)
    coord = scene.coord[:: max(1, len(scene) // SAMPLE)]
    for axis in np.flatnonzero(scene.origin):
        values = coord[:, axis].astype(np.float64) + scene.origin[axis]
        values = values[np.isfinite(values)]
        if len(values) < FEW or np.ptp(values) == 0:
            continue
        if (values.astype(np.float32) == values).all():
            steps[axis] = np.spacing(np.float32(np.median(np.abs(values))))
        for step in DECIMALS:
            if np.abs(values - step * np.rint(values / step)).max() < ROUNDING:
                steps[axis] = max(steps[axis], step)
                break
    return steps


def resolution_notes(scene: Scene, unit_m: object, voxel_m: float) -> list[str]:
    """What the user should know of a cloud whose positions are coarser than they should be.

    Args:
        scene: as its file has it.
        unit_m: metres per unit of its coordinates, or three.
        voxel_m: side of the voxels of the model.
    """
    steps = position_steps(scene) * np.asarray(unit_m, np.float64)
    if steps.max() <= voxel_m / 10:
        return []
    grids = ", ".join(
        f"{step:.2g} m in {axis}" for axis, step in zip("xyz", steps, strict=True) if step
    )
    return [
        f"its positions lie on a grid ({grids}): the file holds too few digits of coordinates this large, voxels are "
        f"{voxel_m:g} m; export it again with double precision, with more digits, or relative to a local origin"
    ]
