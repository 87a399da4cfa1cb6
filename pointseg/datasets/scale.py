"""Checks whether a voxel size fits a cloud, which detects coordinates in millimetres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
TALL = 20
"""Times that clouds in degrees are higher than wide, at least; towers are less."""
FEW_POINTS = 100
"""Clouds of fewer points are not checked."""
NEIGHBOURHOOD = 20_000
"""Points in which neighbours are searched, at each of three places."""


@dataclass(frozen=True)
class ScaleDoubt:
    """Why coordinates and voxel size do not seem to fit; what to do about it depends on where they come from."""

    found: str
    """What the cloud is like: a sentence without its subject."""
    unit: str | None
    """A unit of length that coordinates of this kind often have; None: no unit would explain it."""


def check_scale(scene: Scene, voxel_m: float) -> ScaleDoubt | None:
    """Detect coordinates and voxel size in different units.

    A cloud is suspicious if it spans over 2000 voxels *and* the median distance of neighbouring points at
    three places is over 3 voxels: large buildings have dense surfaces, but a room in millimetres with a voxel
    size in metres has one point per thousand voxels. It is suspicious, too, if it spans less than 4 voxels.

    Args:
        scene: any cloud; points that are not finite are ignored.
        voxel_m: side of a voxel in metres.

    Returns:
        What is doubtful, or None if nothing is suspicious.
    """
    coord = scene.coord[np.isfinite(scene.coord).all(1)]
    if len(coord) < FEW_POINTS:
        return None
    if doubt := degrees_doubt(replace(scene, coord=coord, fields={}), voxel_m):
        return doubt
    extent = float((coord.max(0).astype(float) - coord.min(0)).max())
    return scale_doubt(extent, lambda: point_spacing(coord), voxel_m)


def degrees_doubt(scene: Scene, voxel_m: float) -> ScaleDoubt | None:
    """Detect longitudes and latitudes by their size: a tile of a kilometre is a hundredth of a degree, metres high.

    Args:
        scene: some points at least of a cloud, finite, in metres with z up; far points count little.
        voxel_m: side of a voxel in metres.

    Returns:
        As ``check_scale``.
    """
    coord = scene.coord[:: max(1, len(scene.coord) // NEIGHBOURHOOD)] + scene.origin
    low, high = np.percentile(coord, [1, 99], axis=0)
    wide, tall = float((high - low)[:2].max()), float(high[2] - low[2])
    is_on_earth = bool((np.abs([low[:2], high[:2]]) <= [180, 90]).all())
    if not is_on_earth or wide >= max(SMALL_VOXELS * voxel_m, tall / 1000) or tall < TALL * wide:
        return None
    if tall < SMALL_VOXELS * voxel_m:
        return None  # small in every direction
    return ScaleDoubt(
        f"is {tall:.3g} m high, but only {wide:.3g} wide: x and y look like degrees; project it to a system in "
        "metres, such as UTM",
        unit=None,
    )


def scale_doubt(extent: float, spacing: Callable[[], float], voxel_m: float) -> ScaleDoubt | None:
    """As ``check_scale``, for a cloud that is not in memory.

    Args:
        extent: its longest side, metres.
        spacing: finds what ``point_spacing`` does, if it is needed.
        voxel_m: side of a voxel in metres.
    """
    size = f"spans {extent:.3g} m, {extent / voxel_m:.3g} voxels of {voxel_m:g} m"
    if extent < SMALL_VOXELS * voxel_m:
        return ScaleDoubt(
            f"{size}, too few for a network, as if its coordinates were of a larger unit",
            unit="metre",
        )
    if extent <= LARGE_VOXELS * voxel_m:
        return None
    gap = spacing()
    if gap <= SPARSE_VOXELS * voxel_m:
        return None
    return ScaleDoubt(
        f"{size}, and its points lie {gap:.3g} m or {gap / voxel_m:.3g} voxels apart, as if its coordinates were "
        "millimetres",
        unit="millimetre",
    )


def point_spacing(coord: NDArray[np.float32]) -> float:
    """Median distance to the nearest neighbour at three places of the cloud, in metres.

    Args:
        coord: (N, 3) finite positions, N >= 1. Duplicates count once.

    Returns:
        Metres; infinity if all points coincide.
    """
    centres = [coord[row] for row in spacing_rows(len(coord))]
    return spacing_of([nearest_to(centre, coord) for centre in centres])


def spacing_rows(count: int) -> list[int]:
    """The points of a cloud around which ``point_spacing`` looks."""
    return [quarter * (count - 1) // 4 for quarter in (1, 2, 3)]


def nearest_to(centre: NDArray[np.float32], coord: NDArray[np.float32]) -> NDArray[np.float32]:
    """The ``NEIGHBOURHOOD`` of (N, 3) points that are nearest to one, or all where there are fewer."""
    distance = np.square(coord - centre.astype(float)).sum(1)
    count = min(len(coord), NEIGHBOURHOOD)
    return coord[np.argpartition(distance, count - 1)[:count]]


def spacing_of(neighbourhoods: Sequence[NDArray[np.float32]]) -> float:
    """The median over neighbourhoods of the median distance to the nearest neighbour, metres."""
    gaps = []
    for points in neighbourhoods:
        near = np.unique(points, axis=0)
        if len(near) > 1:
            # At the rim of the neighbourhood the nearest point may be cut off, which the median ignores.
            gaps.append(np.median(cKDTree(near).query(near, k=2)[0][:, 1]))
    return float(np.median(gaps)) if gaps else float("inf")
