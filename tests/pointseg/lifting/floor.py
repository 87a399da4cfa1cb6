"""A floor of 2 m x 2 m with an image of 64 x 64 pixels, and an encoder whose features are the colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dinomed3d.lifting import Encoder
from dinomed3d.lifting.dino import LVD_MEAN, LVD_STD
from pointseg import array_frame
from pointseg.files import write_cloud
from pointseg.images.readers.frame import Frame
from pointseg.scene import Scene

K = [[64.0, 0, 32], [0, 64.0, 32], [0, 0, 1]]
"""A floor point (x, y, 0) is at pixel (32 x, 32 y) of an image whose camera is below (1, 1)."""


class Colours(Encoder):
    """Red, green and blue of patches of 8 pixels, 0 to 1, and a fourth channel that is 1."""

    stride, channels, taps = 8, 4, (0,)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        mean, std = (torch.tensor(v)[:, None, None] for v in (LVD_MEAN, LVD_STD))
        means = F.avg_pool2d(images * std + mean, self.stride)
        return (torch.cat([means, torch.ones_like(means[:, :1])], 1),)

    def bytes_per_image(self, height: int, width: int) -> int:
        return height * width * 12


def halves(left: Any = (255, 0, 0), right: Any = (0, 255, 0)) -> np.ndarray:
    """(64, 64, 3): one colour for x below 1 m, another beyond."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32], image[:, 32:] = left, right
    return image


def pose(x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """World to camera of a view moved by (x, y) metres."""
    found = np.eye(4)
    found[:3, 3] = -1 - x, -1 - y, 2
    return found


def frame(image: np.ndarray | None = None, *, x: float = 0.0, name: str = "a") -> Frame:
    """A view of the floor from 2 m away."""
    return array_frame(halves() if image is None else image, K, world_to_camera=pose(x), name=name)


POINTS = np.array(
    [[np.nan] * 3, [0.5, 0.5, 0], [1.5, 0.5, 0], [9, 9, 0], [np.nan] * 3, [1.75, 1.5, 0], [0.25, 1.5, 0]]
)  # fmt: skip
"""Nothing measured, red, green, outside, nothing measured, green, red."""
SEEN = np.array([False, True, True, False, False, True, True])
RED, GREEN = [1.0, 0, 0, 1], [0.0, 1, 0, 1]


def written(
    folder: Path, name: str = "floor.ply", *, origin: Any = (0, 0, 0), points: Any = POINTS
) -> Path:
    """The points in a file, and their camera in cameras.json next to it."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(halves()).save(folder / "a.png")
    world_to_camera = pose()
    world_to_camera[:3, 3] -= np.asarray(origin, float)
    view = {"image": "a.png", "K": K, "pose": world_to_camera.tolist(), "width": 64, "height": 64}
    manifest = {
        "format": "pointseg-cameras-1",
        "pose_direction": "world_to_camera",
        "views": [view],
    }
    (folder / "cameras.json").write_text(json.dumps(manifest))
    scene = Scene(coord=np.asarray(points, np.float32), origin=np.asarray(origin, float))
    write_cloud(folder / name, scene)
    return folder / name
