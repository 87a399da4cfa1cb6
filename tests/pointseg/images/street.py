"""A street that one camera looks along: ground, a wall at its end, a texture on both."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from dinomed3d.lifting import Camera
from pointseg.images.readers.frame import Frame
from pointseg.scene import Scene

SIZE = (60, 80)
HEIGHT_M, WALL_M = 1.5, 9.0


@dataclass(frozen=True)
class Held:
    """An image or a depth map in memory."""

    values: np.ndarray
    name: str = "held"

    def __str__(self):
        return self.name

    def read(self):
        return self.values

    def key(self):
        return self.name


def camera(**changes):
    """At 1.5 m over ground where z is up, looking along x."""
    pose = torch.tensor([[0.0, -1, 0, 0.3], [0, 0, -1, HEIGHT_M], [1, 0, 0, 2], [0, 0, 0, 1]])
    matrix = torch.tensor([[70.0, 0, 40], [0, 70, 30], [0, 0, 1]])
    settings = {"intrinsics": matrix, "size": SIZE, "world_to_camera": pose} | changes
    return Camera(**settings)


def depth_map():
    """(H, W) metres."""
    row = np.arange(SIZE[0]) + 0.5
    with np.errstate(divide="ignore"):
        ground = np.where(row > 30, HEIGHT_M * 70 / np.maximum(row - 30, 1e-9), np.inf)
    return np.repeat(np.minimum(ground, WALL_M)[:, None], SIZE[1], 1).astype(np.float32)


def photo():
    """(H, W, 3) something smooth, unlike itself in other places."""
    noise = np.random.default_rng(0).normal(size=(*SIZE, 3))
    smooth = gaussian_filter(noise, (3, 3, 0))
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def street(*, colored=True, jitter=0.0):
    """The cloud of the camera's own pixels, moved by so many pixels at random along the surfaces."""
    coord = camera().unproject(torch.from_numpy(depth_map())).reshape(-1, 3).numpy()
    if jitter:
        spread = np.random.default_rng(1).uniform(-jitter, jitter, (len(coord), 1))
        coord = coord + spread * [0, 0.02, 0]
    fields = {"color": photo().reshape(-1, 3).astype(np.float32)} if colored else {}
    return Scene(coord=coord.astype(np.float32), fields=fields, name="street")


def frame(*, depth=False, **changes):
    """The view of the street; with another camera, if changes say so."""
    held = Held(depth_map(), "depth") if depth else None
    return Frame(name="ahead", camera=camera(**changes), image=Held(photo(), "photo"), depth=held)


def inverted(view):
    return posed(view, torch.linalg.inv(view.camera.world_to_camera))


def posed(view, pose):
    return replace(view, camera=replace(view.camera, world_to_camera=pose))
