"""The four usual pose conventions: world to camera or camera to world, with OpenCV's or OpenGL's camera axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dinomed3d.lifting import Camera

INVERTED = "inverted"
"""The pose is the transform in the other direction."""
OPENGL = "OpenGL axes"
"""The camera's axes are those of OpenGL and Blender: y up, z backward."""
BOTH = "inverted, OpenGL axes"
"""Both of them."""
WORDS: Mapping[str, str] = {
    INVERTED: "the poses look inverted: they are camera to world where world to camera is stated, or the "
    "reverse (in a manifest: change 'pose_direction')",
    OPENGL: "the camera axes look like OpenGL's (y up, z backward); x right, y down, z forward is needed: "
    "negate the second and third axis of the camera",
    BOTH: "the poses look inverted, and the camera axes like OpenGL's (y up, z backward); x right, y down, z "
    "forward is needed",
}
_FLIP = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))


def alternative_poses(camera: Camera, turn: Tensor | None = None) -> dict[str, Camera]:
    """The same camera with its pose read in the other conventions, where that makes a difference.

    Args:
        camera: in the world of the points.
        turn: (3, 3) rotation from the world of the files to that of the points; None: none.
    """
    world = torch.eye(4, dtype=torch.float64)
    if turn is not None:
        world[:3, :3] = turn
    stated = camera.world_to_camera @ world
    inverse = torch.linalg.inv(stated)
    poses = {INVERTED: inverse, OPENGL: _FLIP @ stated, BOTH: _FLIP @ inverse}
    return {
        name: replace(camera, world_to_camera=pose @ world.T)
        for name, pose in poses.items()
        if not torch.allclose(pose, stated, rtol=0, atol=1e-3)
    }
