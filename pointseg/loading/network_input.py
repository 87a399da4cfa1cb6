"""From a whole scene to the input of a network, without anything random: for tests and predictions."""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import NDArray

from pointseg.cloud import Cloud
from pointseg.config.recipe import Recipe
from pointseg.loading.to_cloud import to_cloud
from pointseg.ops.voxels import Voxels
from pointseg.scene import Scene
from pointseg.transforms import CenterShift, ClampToBox


def placed(scene: Scene, recipe: Recipe, *, max_side_m: float = inf) -> Scene:
    """A scene where training would have placed it: rooms centred, LiDAR scans within their box.

    Args:
        scene: with at least one point, all finite.
        recipe: of the training.
        max_side_m: rooms wider than this are not centred; their centre would have no precision in float32.

    Returns:
        The same points in the same order.
    """
    rng = np.random.default_rng(0)  # not used by these transforms
    for step in recipe.input.before:
        scene = step(scene, rng)
    if recipe.is_indoor:
        return scene if widest_m(scene) > max_side_m else CenterShift()(scene, rng)
    box = recipe.clip_box_m
    if box is None or recipe.drop_outside:  # points outside need a class, too
        return scene
    return ClampToBox(box_m=box)(scene, rng)


def widest_m(scene: Scene) -> float:
    """The longest side of the bounding box of a scene, metres."""
    low, high = scene.coord.min(0).astype(np.float64), scene.coord.max(0).astype(np.float64)
    return float((high - low).max())


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
