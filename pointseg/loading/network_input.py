"""From a whole scene to the input of a network, without anything random: for tests and predictions."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from pointseg.cloud import Cloud
from pointseg.config.recipe import Recipe
from pointseg.geometry.voxels import Voxels
from pointseg.loading.to_cloud import to_cloud
from pointseg.scene import Scene
from pointseg.transforms import CenterShift, ClampToBox


def cell_of(position: NDArray[np.float32], voxel_m: float) -> NDArray[np.int64]:
    """(3,) the voxel that (3,) a position is in, in voxels from the origin."""
    cell = np.floor(position.astype(np.float64) / voxel_m)
    return np.clip(cell, -(2.0**62), 2.0**62).astype(np.int64)


@dataclass(frozen=True)
class Placement:
    """Where training would have placed a scene: rooms centred, LiDAR scans within their box."""

    low: NDArray[np.float64]
    """(3,) minimum of the scene's positions, metres."""
    high: NDArray[np.float64]
    """(3,) maximum."""
    recipe: Recipe
    """Of the training."""
    max_side_m: float = inf
    """Rooms wider than this are not centred; their centre would have no precision in float32."""

    @property
    def is_too_wide(self) -> bool:
        """Whether this is a room that is not centred, so that each of its tiles is."""
        return self.recipe.is_indoor and float((self.high - self.low).max()) > self.max_side_m

    @property
    def first_cell(self) -> NDArray[np.int64]:
        """(3,) the smallest voxel of the placed scene, in voxels from its origin."""
        lowest = self(Scene(coord=self.low.astype(np.float32)[None])).coord[0]
        return cell_of(lowest, self.recipe.voxel_m)

    def __call__(self, scene: Scene) -> Scene:
        """Some points of the scene, or all, in the same order."""
        if self.recipe.is_indoor:
            if self.is_too_wide:
                return scene
            return CenterShift().moved(scene, self.low, self.high)
        box = self.recipe.clip_box_m
        if box is None or self.recipe.drop_outside:  # points outside need a class, too
            return scene
        return ClampToBox(box_m=box)(scene, np.random.default_rng(0))


def placed(scene: Scene, recipe: Recipe) -> Scene:
    """A scene where training would have placed it, with at least one point, all finite."""
    scene = before_placement(scene, recipe)
    return placement_of(scene, recipe)(scene)


def before_placement(scene: Scene, recipe: Recipe) -> Scene:
    """A whole scene as its recipe transforms it before anything else."""
    for step in recipe.input.before:
        scene = step(scene, np.random.default_rng(0))  # not used by these transforms
    return scene


def placement_of(scene: Scene, recipe: Recipe, *, max_side_m: float = inf) -> Placement:
    """The placement of a whole scene with at least one point, all finite."""
    low, high = (edge(scene.coord, axis=0).astype(np.float64) for edge in (np.min, np.max))
    return Placement(low, high, recipe, max_side_m)


def network_input(scene: Scene, index: NDArray[np.int64], voxels: Voxels, recipe: Recipe) -> Cloud:
    """A sample with one point per voxel, as training ends: centred where samples of training are.

    Args:
        scene: as :func:`placed` returns it, or a part of it.
        index: (M,) a point of each voxel.
        voxels: the M voxels of the scene.
        recipe: of the network.

    Raises:
        KeyError: a feature that the scene lacks.
    """
    sample = scene.select(index).with_fields(grid_coord=voxels.grid_coord)
    if recipe.is_indoor or recipe.input.center_outdoor:
        sample = CenterShift(floor=False)(sample, np.random.default_rng(0))
    return to_cloud(sample, recipe)
