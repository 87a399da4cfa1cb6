"""Checks whether a voxel size fits a cloud, which detects coordinates in millimetres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pointseg.scene import Scene

LARGE_VOXELS = 2000
"""Clouds that span more voxels are checked for sparsity; a room of 10 m spans 500 voxels of 2 cm."""
SPARSE_VOXELS = 3.0
"""Distance of neighbouring points, in voxels, above which a network cannot recognise surfaces."""
SMALL_VOXELS = 4
"""Clouds that span fewer voxels have no structure that a network could recognise."""
FEW_POINTS = 100
"""Clouds of fewer points are not checked."""
NEIGHBOURHOOD = 20_000
"""Points in which neighbours are searched, at each of three places."""


def check_scale(scene: Scene, voxel_m: float) -> str | None:
    """Detect coordinates and voxel size in different units.

    A cloud is suspicious if it spans over 2000 voxels *and* the median distance of neighbouring points at
    three places is over 3 voxels: large buildings have dense surfaces, but a room in millimetres with a voxel
    size in metres has one point per thousand voxels. It is suspicious, too, if it spans less than 4 voxels.

    Args:
        scene: any cloud; points that are not finite are ignored.
        voxel_m: side of a voxel in metres.

    Returns:
        A sentence for the user, or None if nothing is suspicious.
    """
    coord = scene.coord[np.isfinite(scene.coord).all(1)]
    if len(coord) < FEW_POINTS:
        return None
    extent = float((coord.max(0).astype(float) - coord.min(0)).max())
    who = (
        f"scene {scene.name}: spans {extent:.3g} m, {extent / voxel_m:.3g} voxels of {voxel_m:g} m"
    )
    if extent < SMALL_VOXELS * voxel_m:
        return (
            f"{who}, too few for a network; give a smaller voxel size, or the unit "
            f"of the coordinates if they are not metres"
        )
    if extent <= LARGE_VOXELS * voxel_m:
        return None
    gap = point_spacing(coord)
    if gap <= SPARSE_VOXELS * voxel_m:
        return None
    return (
        f"{who}, and its points lie {gap:.3g} m or {gap / voxel_m:.3g} voxels apart; if the coordinates "
        f"are millimetres, say so (unit: millimetre), otherwise give a larger voxel size"
    )


def point_spacing(coord: NDArray[np.float32]) -> float:
    """Median distance to the nearest neighbour at three places of the cloud, in metres.

    Args:
        coord: (N, 3) finite positions, N >= 1. Duplicates count once.

    Returns:
        Metres; infinity if all points coincide.
    """
    gaps = []
    for quarter in (1, 2, 3):
        centre = coord[quarter * (len(coord) - 1) // 4]
        distance = np.square(coord - centre.astype(float)).sum(1)
        count = min(len(coord), NEIGHBOURHOOD)
        near = np.unique(coord[np.argpartition(distance, count - 1)[:count]], axis=0)
        if len(near) > 1:
            # At the rim of the neighbourhood the nearest point may be cut off, which the median ignores.
            gaps.append(np.median(cKDTree(near).query(near, k=2)[0][:, 1]))
    return float(np.median(gaps)) if gaps else float("inf")
