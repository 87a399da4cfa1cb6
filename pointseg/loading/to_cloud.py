"""From a sampled scene to what a network reads."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pointseg.cloud import Cloud
from pointseg.config.recipe import FEATURES, Recipe
from pointseg.scene import Scene


def to_cloud(scene: Scene, recipe: Recipe) -> Cloud:
    """A batch of one cloud.

    Args:
        scene: after voxel sampling (it has ``grid_coord``).
        recipe: says which features make the input channels, in which order, and how positions and colours
            are scaled. The feature ``coord`` is the same as ``Cloud.coord``.

    Raises:
        ValueError: no ``grid_coord``.
        KeyError: a feature that the scene lacks.
    """
    if "grid_coord" not in scene:
        raise ValueError(f"to_cloud: scene {scene.name} must be voxel-sampled first")
    scene = scene.moved(recipe.input.scaled(scene))
    channels = [_feature(scene, name, recipe) for name in recipe.features]
    segment = scene.fields.get("segment")
    names = ("image_coord", "image_mask", "image_view")
    image = {name: scene.fields.get(name) for name in names}
    shown = scene.fields.get("image_shown")
    return Cloud(
        coord=torch.from_numpy(scene.coord),
        grid_coord=torch.from_numpy(scene["grid_coord"].astype(np.int64)),
        feat=torch.from_numpy(np.concatenate(channels, axis=1)),
        offset=torch.tensor([len(scene)]),
        segment=None if segment is None else torch.from_numpy(segment.astype(np.int64)),
        image_shown=None if shown is None else torch.from_numpy(shown.any(0, keepdims=True)),
        **{name: None if v is None else torch.from_numpy(v) for name, v in image.items()},
    )


def _feature(scene: Scene, name: str, recipe: Recipe) -> NDArray[np.float32]:
    """(N, C) one feature of the points."""
    if name == "coord":
        return scene.coord
    if name in recipe.input.zeros:
        return np.zeros((len(scene), FEATURES[name]), np.float32)
    values: NDArray[np.float32] = scene[name]
    if name != "color":
        return values
    if recipe.color_range == "unit":
        return values / np.float32(255)
    return values / np.float32(127.5) - np.float32(1)
