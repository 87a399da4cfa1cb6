"""From a sampled scene to what a network reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pointseg.cloud import Cloud
from pointseg.scene import Scene


def to_cloud(scene: Scene, *, features: Sequence[str], color_range: str) -> Cloud:
    """A batch of one cloud.

    Args:
        scene: after voxel sampling (it has ``grid_coord``).
        features: fields that make the input channels, in this order; ``coord`` is the position.
        color_range: unit (0 to 1) or signed (-1 to 1).

    Raises:
        ValueError: no ``grid_coord``, an unknown colour range.
        KeyError: a feature that the scene lacks.
    """
    if "grid_coord" not in scene:
        raise ValueError(f"to_cloud: scene {scene.name} must be voxel-sampled first")
    channels = [_feature(scene, name, color_range) for name in features]
    segment = scene.fields.get("segment")
    image = {name: scene.fields.get(name) for name in ("image_coord", "image_mask")}
    return Cloud(
        coord=torch.from_numpy(scene.coord),
        grid_coord=torch.from_numpy(scene["grid_coord"].astype(np.int64)),
        feat=torch.from_numpy(np.concatenate(channels, axis=1)),
        offset=torch.tensor([len(scene)]),
        segment=None if segment is None else torch.from_numpy(segment.astype(np.int64)),
        **{name: None if v is None else torch.from_numpy(v) for name, v in image.items()},
    )


def _feature(scene: Scene, name: str, color_range: str) -> NDArray[np.float32]:
    if name == "coord":
        return scene.coord
    values: NDArray[np.float32] = scene[name]
    if name != "color":
        return values
    if color_range == "unit":
        return values / np.float32(255)
    if color_range == "signed":
        return values / np.float32(127.5) - np.float32(1)
    raise ValueError(f"to_cloud: 'color_range' must be unit or signed, got {color_range!r}")
