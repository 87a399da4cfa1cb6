"""Whether a voxel size fits a cloud: coordinates in millimetres give themselves away."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pointseg.scene import Scene

LARGE_VOXELS = 2000
"""Clouds that span more voxels than this are looked at more closely; a room of 10 m spans 500 of 2 cm."""
SPARSE_VOXELS = 3.0
"""Neighbouring points are at most this far apart, in voxels, where a network sees surfaces."""
SMALL_VOXELS = 4
"""Clouds that span fewer voxels than this hold nothing a network could tell apart."""
FEW_POINTS = 100
"""Clouds of fewer points say nothing about their scale."""
NEIGHBOURHOOD = 20_000
"""Points among which neighbours are sought, at each of three places."""


def check_scale(scene: Scene, voxel_m: float) -> str | None:
    """Say so where coordinates and voxel size seem to be in different units.

    A cloud is doubtful when it spans over 2000 voxels *and* neighbouring points lie over 3 voxels
    apart (half of them, at three places): a building of many voxels has dense surfaces, a room in
    millimetres under a voxel size in metres has one point in a thousand voxels. It is doubtful,
    too, when it fits into 4 voxels.

    Args:
        scene: any cloud; points that are not finite are left out.
        voxel_m: side of a voxel, metres.

    Returns:
        A sentence for the user, or None where nothing is doubtful.
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
            f"{who}, too few to tell anything apart; give a smaller voxel size, or the unit "
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
    """How far a point's nearest neighbour is: the median at three places of the cloud, metres.

    Args:
        coord: (N, 3) finite positions, N >= 1. Points at one and the same place count once.

    Returns:
        Metres; infinity where all points lie at one place.
    """
    gaps = []
    for quarter in (1, 2, 3):
        centre = coord[quarter * (len(coord) - 1) // 4]
        distance = np.square(coord - centre.astype(float)).sum(1)
        count = min(len(coord), NEIGHBOURHOOD)
        near = np.unique(coord[np.argpartition(distance, count - 1)[:count]], axis=0)
        if len(near) > 1:
            # Near the rim of the neighbourhood the nearest point may be cut off: the middle decides.
            gaps.append(np.median(cKDTree(near).query(near, k=2)[0][:, 1]))
    return float(np.median(gaps)) if gaps else float("inf")
