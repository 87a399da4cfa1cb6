"""Transforms that keep some points of a scene, with all their fields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pointseg.geometry.voxels import voxelize
from pointseg.scene import Scene


@dataclass(frozen=True, kw_only=True)
class RandomDrop:
    """Drops a share of the points, with some probability; the others stay in order."""

    fraction: float
    """Share that is dropped, 0 to 1. At least one point stays."""
    probability: float = 1.0
    """The probability that points are dropped."""

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1:
            raise ValueError(f"RandomDrop: 'fraction' must be in [0, 1), got {self.fraction}")

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The points that stay."""
        if rng.random() >= self.probability or len(scene) == 0:
            return scene
        kept = max(1, int(len(scene) * (1 - self.fraction)))
        # choice() does not shuffle here: order does not matter, sorting keeps neighbours in memory
        return scene.select(np.sort(rng.choice(len(scene), kept, replace=False, shuffle=False)))


@dataclass(frozen=True, kw_only=True)
class GridSample:
    """One random point per voxel, in the order of the voxels; sets ``grid_coord``."""

    voxel_m: float
    """The edge of a voxel, metres."""

    def __post_init__(self) -> None:
        if not self.voxel_m > 0:
            raise ValueError(f"GridSample: 'voxel_m' must be above 0 metres, got {self.voxel_m}")

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The sampled points.

        Raises:
            ValueError: as :func:`pointseg.geometry.voxels.voxelize`.
        """
        voxels = voxelize(scene.coord, self.voxel_m)
        return scene.select(voxels.random(rng)).with_fields(grid_coord=voxels.grid_coord)


@dataclass(frozen=True, kw_only=True)
class SphereCrop:
    """The points nearest to a random one of them; they stay in order.

    Nothing is drawn and nothing left out where a scene is small enough.
    """

    max_points: int | None = None
    """The most points that stay; None: no limit."""
    fraction: float = 1.0
    """The largest share of the points that stays, above 0."""

    def __post_init__(self) -> None:
        if self.max_points is not None and self.max_points < 1:
            raise ValueError(f"SphereCrop: 'max_points' must be >= 1, got {self.max_points}")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"SphereCrop: 'fraction' must be in (0, 1], got {self.fraction}")

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The points that stay."""
        kept = max(1, int(len(scene) * self.fraction))
        if self.max_points is not None:
            kept = min(kept, self.max_points)
        if kept >= len(scene):
            return scene
        away = scene.coord - scene.coord[rng.integers(len(scene))]
        squared = np.einsum("na,na->n", away, away)
        return scene.select(np.sort(np.argpartition(squared, kept - 1)[:kept]))


@dataclass(frozen=True, kw_only=True)
class DropOutside:
    """Only the points in a box, its faces included."""

    box_m: tuple[float, ...]
    """x, y, z minima, then maxima, metres."""

    def __post_init__(self) -> None:
        check_box(self.box_m, "DropOutside")

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The points inside.

        Raises:
            ValueError: there are none.
        """
        low, high = np.array(self.box_m[:3], np.float32), np.array(self.box_m[3:], np.float32)
        inside = np.flatnonzero(((scene.coord >= low) & (scene.coord <= high)).all(axis=1))
        if len(inside) == 0:
            raise ValueError(
                f"DropOutside: scene {scene.name} must have points in the box {self.box_m} (metres), "
                f"it has none"
            )
        return scene.select(inside)


def check_box(box_m: tuple[float, ...], who: str) -> None:
    """Refuse a box that is not x, y, z minima, then larger maxima, with a ValueError for ``who``."""
    if len(box_m) != 6 or not all(a < b for a, b in zip(box_m[:3], box_m[3:], strict=True)):
        raise ValueError(f"{who}: 'box_m' must be x, y, z minima, then larger maxima, got {box_m}")
