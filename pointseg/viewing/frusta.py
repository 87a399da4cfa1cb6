"""Cameras as browsers draw them: a pyramid at the pose of each, with its image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pointseg.images.readers.frame import Frame

SMALL, LARGE = 256, 1280
"""Pixels of the longer side of images: on the pyramids, and of the one that is looked through."""


@dataclass(frozen=True)
class Frustum:
    """The pyramid of a camera; camera axes are x right, y down, z forward."""

    name: str
    """Of the view."""
    fov: float
    """Vertical field of view, radians."""
    aspect: float
    """Width over height."""
    wxyz: tuple[float, float, float, float]
    """Rotation from camera to world as a quaternion."""
    position: tuple[float, float, float]
    """Of the camera, less the shift."""
    forward: tuple[float, float, float]
    """Viewing direction in the world, unit length."""
    up: tuple[float, float, float]
    """What is up in the image, in the world, unit length."""


def frustum_of(frame: Frame, shift: NDArray[np.float64]) -> Frustum:
    """The pyramid of a posed image; lens distortion and an off-centre principal point are not drawn.

    Args:
        frame: with its pose in the world of the points.
        shift: (3,) what is subtracted from all positions.
    """
    camera = frame.camera
    (fx, _, _), (_, fy, _), _ = camera.intrinsics.tolist()
    height, width = camera.size
    to_world = camera.world_to_camera[:3, :3].numpy().T
    x, y, z = (camera.centre.numpy() - shift).tolist()
    return Frustum(
        name=frame.name,
        fov=float(2 * np.arctan(height / (2 * abs(fy)))),
        aspect=abs((width / fx) / (height / fy)),
        wxyz=quaternion(to_world),
        position=(x, y, z),
        forward=_triple(to_world[:, 2]),
        up=_triple(-to_world[:, 1]),
    )


def quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """A (3, 3) rotation as w, x, y, z of unit length, w >= 0."""
    from scipy.spatial.transform import Rotation  # slow to import

    x, y, z, w = Rotation.from_matrix(rotation).as_quat(canonical=True).tolist()
    return w, x, y, z


def picture_of(frame: Frame, side: int) -> NDArray[np.uint8]:
    """(H, W, 3) the image of a view, with a longer side of at most so many pixels.

    Raises:
        UserError: it is missing, damaged, or of another size than its camera.
    """
    image = Image.fromarray(frame.read_image())
    image.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(image)


def _triple(vector: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = vector.tolist()
    return x, y, z
