"""How clouds lie in front of the viewer: what is shown and hidden together, sizes of points, the first viewpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointseg.pictures.viewpoints import below_ceiling, upright
from pointseg.viewing.clouds import ViewedCloud
from pointseg.viewing.colouring import VERDICTS, verdicts

SUBSET = 100_000
"""Points from which distances and extents are found."""
GAP = 1.4
"""Sizes of points, in usual distances to the next one: those are short of the gaps between."""
NEIGHBOURS = 2_000
"""Points whose distance to the next one decides the size of points."""
TRIM = 1.0
"""Per cent of the points that may lie outside of the first view, on each side."""
VIEW = np.array([0.31, -0.59, 0.74])
"""Direction from the middle to the viewer, z up: from the front right and above, as in our pictures."""
DISTANCE = 1.6
"""Of the viewer, in radii of the clouds."""


@dataclass(frozen=True)
class Part:
    """Points of a cloud that are shown and hidden together."""

    cloud: int
    """Number of the cloud."""
    label: int
    """Their class, -1 where there is none."""
    verdict: int
    """One of ``VERDICTS``."""
    is_ceiling: bool
    """Whether they are a room's ceiling."""
    rows: NDArray[np.int64]
    """(n,) which points of the cloud these are."""


@dataclass(frozen=True)
class Viewpoint:
    """Where the viewer is at first."""

    position: NDArray[np.float64]
    """(3,) of the viewer."""
    look_at: NDArray[np.float64]
    """(3,) middle of the clouds."""
    radius: float
    """From there to the outermost points, but for outliers."""


def parts_of(number: int, cloud: ViewedCloud, *, up: str) -> list[Part]:
    """The points of a cloud by class, verdict and whether they are a room's ceiling.

    Args:
        number: of the cloud.
        cloud: its points.
        up: the axis that points up, one of ``PICTURE_UP_AXES``.
    """
    is_ceiling = ~below_ceiling(upright(cloud.scene.coord, up))
    keys = ((cloud.labels.astype(np.int64) + 1) * len(VERDICTS) + verdicts(cloud)) * 2 + is_ceiling
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    parts = []
    for key, rows in zip(found.tolist(), np.split(order, starts[1:]), strict=True):
        label, verdict = divmod(key // 2, len(VERDICTS))
        parts.append(Part(number, label - 1, verdict, bool(key % 2), rows))
    return parts


def viewpoint_of(
    coords: Sequence[NDArray[np.float32]],
    up: str,
    cameras: Sequence[tuple[float, float, float]] = (),
) -> Viewpoint:
    """A place from which all clouds are seen.

    Args:
        coords: (n, 3) of each cloud, at least one point altogether.
        up: the axis that points up.
        cameras: (3,) positions of cameras, which are seen as well unless they are far away.
    """
    low, high = np.percentile(_subset(coords), [TRIM, 100 - TRIM], axis=0)
    for position in cameras:
        near = np.clip(np.array(position), 2 * low - high, 2 * high - low)
        low, high = np.minimum(low, near), np.maximum(high, near)
    middle = (low + high) / 2
    radius = float(np.linalg.norm(high - low) / 2) or 1.0
    away = upright(np.eye(3), up).astype(np.float64) @ VIEW
    return Viewpoint(middle + DISTANCE * radius * away / np.linalg.norm(away), middle, radius)


def point_size(coords: Sequence[NDArray[np.float32]]) -> float:
    """A little more than the usual distance from a point to the next one, which closes most gaps.

    Args:
        coords: (n, 3) of each cloud, at least one point altogether.
    """
    from scipy.spatial import cKDTree  # slow to import

    largest = max(coords, key=len)
    some = largest[:: max(1, len(largest) // NEIGHBOURS)]
    if len(largest) < 2:
        return 0.01
    tree = cKDTree(largest, balanced_tree=False, compact_nodes=False)
    distance, _ = tree.query(some, k=2)
    size = GAP * float(np.median(distance[:, 1]))
    return size or viewpoint_of(coords, "z").radius / 500


def up_vector(up: str) -> tuple[float, float, float]:
    """The direction of an axis such as z or -y."""
    x, y, z = upright(np.eye(3), up)[:, 2].tolist()
    return x, y, z


def picked(
    coord: NDArray[np.float32],
    origin: NDArray[np.float64],
    direction: NDArray[np.float64],
    *,
    radius: float,
    slack: float,
) -> tuple[int, float] | None:
    """The point that a ray meets first, and its distance; None: it meets none.

    Of points at about that distance, whose discs overlap, it is the one nearest to the ray.

    Args:
        coord: (n, 3) points that are shown.
        origin: (3,) where the ray begins.
        direction: (3,) where it goes, unit length.
        radius: of the disc that a point is drawn as, which counts as the point.
        slack: how far a point may lie from the ray, per unit of distance, where its disc is smaller than that.
    """
    relative = coord - origin.astype(np.float32)
    along = relative @ direction.astype(np.float32)
    distance_off_ray = np.sqrt(np.maximum((relative**2).sum(1) - along**2, 0))
    reach = np.maximum(radius, slack * along)
    meets = np.flatnonzero((along > 0) & (distance_off_ray <= reach))
    if not len(meets):
        return None
    nearest = meets[np.argmin(along[meets])]
    front = meets[along[meets] <= along[nearest] + 2 * reach[nearest]]
    first = front[np.argmin(distance_off_ray[front])]
    return int(first), float(along[first])


def _subset(coords: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    total = sum(map(len, coords))
    return np.concatenate([coord[:: max(1, total // SUBSET)] for coord in coords])
