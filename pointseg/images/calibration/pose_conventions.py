"""Poses that were meant, perhaps: the usual ways to write down a pose the other way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dinomed3d.lifting import Camera

INVERTED = "inverted"
"""The pose is the transform in the other direction."""
OPENGL = "axes y up, z backward"
"""The camera's axes are those of OpenGL and Blender."""
BOTH = "inverted, axes y up, z backward"
FORWARD_X = "axes x forward, z up"
"""The camera's axes are those of a vehicle."""
WORDS: Mapping[str, str] = {
    INVERTED: "the poses look inverted: they are camera to world where world to camera is stated, or the "
    "reverse (in a manifest: change 'pose_direction')",
    OPENGL: "the camera's axes look like OpenGL's (y up, z backward); here they are x right, y down, z "
    "forward: negate the second and third axis of the camera",
    BOTH: "the poses look inverted, and the camera's axes like OpenGL's (y up, z backward); here they are x "
    "right, y down, z forward",
    FORWARD_X: "the camera's axes look like a vehicle's (x forward, y left, z up); here they are x right, y "
    "down, z forward",
}
_FLIP = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
_VEHICLE = torch.tensor(
    [[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.float64
)


def alternative_poses(camera: Camera, turn: Tensor | None = None) -> dict[str, Camera]:
    """The same camera with its pose read in other ways; those that differ from it.

    Args:
        camera: in the world of the points.
        turn: (3, 3) rotation that brought the world of the files to that of the points; None: none.
    """
    world = torch.eye(4, dtype=torch.float64)
    if turn is not None:
        world[:3, :3] = turn
    stated = camera.world_to_camera @ world
    inverse = torch.linalg.inv(stated)
    poses = {
        INVERTED: inverse,
        OPENGL: _FLIP @ stated,
        BOTH: _FLIP @ inverse,
        FORWARD_X: _VEHICLE @ stated,
    }
    return {
        name: replace(camera, world_to_camera=pose @ world.T)
        for name, pose in poses.items()
        if not torch.allclose(pose, stated, rtol=0, atol=1e-3)
    }
