"""One posed image of a scene; its pixels and depths are read when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from dinomed3d.lifting import Camera, Lens, check_rigid
from dinomed3d.runtime.errors import UserError

MOST_SIDE = 1 << 17
"""Pixels that a side of an image may have; what states more is damaged."""


class ImagesError(UserError):
    """An image, a depth map or a camera is missing, damaged, or does not fit the others."""


class ImageSource(Protocol):
    """Reads the pixels of an image; ``str()`` of it names the file."""

    def read(self) -> NDArray[np.uint8]:
        """Read the image, (H, W, 3) red, green, blue.

        Raises:
            UserError: it is missing or damaged; the message names the file.
        """

    def key(self) -> str:
        """Identify the content: another image has another key.

        Raises:
            UserError: it is missing.
        """


@runtime_checkable
class StoresOrientation(Protocol):
    """An image whose file says how its pixels must be turned to be upright."""

    def orientation(self) -> int:
        """Read the orientation as EXIF numbers it: 1 as stored, 3 half a turn, 6 and 8 a quarter of one."""


class DepthSource(Protocol):
    """Reads the depth map of an image; ``str()`` of it names the file."""

    def read(self) -> NDArray[np.float32]:
        """Read the depth map, (h, w) metres along the camera's axis, 0 where unknown.

        It may have another resolution than the image, but the same field of view.

        Raises:
            UserError: it is missing or damaged; the message names the file.
        """


class PointProjection(Protocol):
    """Where the points of a scene are in an image, where the dataset says so itself."""

    def read(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read the projection of all points of the scene, as the dataset loads it.

        Args:
            count: N, the points of the scene.

        Returns:
            (N, 2) pixels of the stored image, u right and v down; (N,) whether the point is seen there, before
            positions outside the image are excluded.

        Raises:
            UserError: it is missing or damaged, or of another number of points.
        """


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A posed image, perhaps with a depth map; small, since nothing is read yet."""

    name: str
    """Name of the view, unique in its scene."""
    camera: Camera
    """Pose in the world of the scene (``coord + origin``, metres), and intrinsics of the stored image."""
    image: ImageSource
    """Reads the image."""
    depth: DepthSource | None = None
    """Reads the depth map; None: there is none."""
    projection: PointProjection | None = None
    """Reads where the points are in the image; None: the camera projects them."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Tensors are sent to other processes as open files, of which there may be too few for many frames.
        camera = self.camera
        pose = camera.world_to_camera.tolist()
        plain = (camera.intrinsics.tolist(), camera.size, pose, camera.distortion)
        return _restore, (self.name, plain, self.image, self.depth, self.projection)

    def read_image(self) -> NDArray[np.uint8]:
        """Read the image, (H, W, 3), of the size of the camera.

        Pixels are taken as they are stored, as COLMAP, nerfstudio and Metashape do; they are turned as EXIF says
        where only the turned image has the size that the camera was calibrated for.

        Raises:
            UserError: it is missing or damaged, or has another size than the intrinsics.
        """
        image, size = self.image.read(), self.camera.size
        if image.shape[:2] == size:
            return image
        if image.shape[1::-1] == size and isinstance(self.image, StoresOrientation):
            turned = _upright(image, self.image.orientation())
            if turned.shape[:2] == size:
                return turned
        (height, width), (wanted_height, wanted_width) = image.shape[:2], size
        raise ImagesError(
            f"{self.image}: is {width} x {height} pixels (width x height), but the intrinsics (K) of view "
            f"'{self.name}' are for {wanted_width} x {wanted_height}; {_explain_size(image.shape[:2], size)}"
        )

    def read_depth(self) -> NDArray[np.float32] | None:
        """Read the depth map, (h, w) metres, 0 where unknown; None if there is none.

        Raises:
            UserError: it is missing or damaged, or has another aspect ratio than the image.
        """
        if self.depth is None:
            return None
        depth = self.depth.read()
        (height, width), (h, w) = self.camera.size, depth.shape
        if not 0.95 < (w / h) / (width / height) < 1.05:  # ScanNet's differ by half a percent
            raise ImagesError(
                f"{self.depth}: is {w} x {h} pixels (width x height), another aspect ratio than the image of "
                f"view '{self.name}' with {width} x {height}; align the depth map with the image"
            )
        return depth


def _upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """An image turned by a quarter, as EXIF's orientations 5 to 8 say; others leave it as it is."""
    if orientation not in (5, 6, 7, 8):
        return image
    turned = image.transpose(1, 0, 2)  # 5: mirrored along the diagonal
    if orientation in (6, 7):
        turned = turned[:, ::-1]
    if orientation in (7, 8):
        turned = turned[::-1]
    return np.ascontiguousarray(turned)


def _explain_size(has: tuple[int, ...], wanted: tuple[int, int]) -> str:
    """What to do about an image of another size than its camera."""
    factors = has[0] / wanted[0], has[1] / wanted[1]
    if (has[1], has[0]) == wanted:
        return (
            "it was turned by a quarter after the camera was calibrated, and its EXIF orientation does not say so: "
            "turn it back; or the size of the camera was given as (width, height)"
        )
    if abs(factors[0] / factors[1] - 1) < 0.01:
        return (
            f"it was resized by {factors[1]:.4g}: give the image that was calibrated, or multiply the first two rows "
            f"of K by {factors[1]:.4g}"
        )
    return "give the image that was calibrated, or scale K to this one"


def _restore(
    name: str,
    camera: tuple[Any, ...],
    image: ImageSource,
    depth: DepthSource | None,
    projection: PointProjection | None,
) -> Frame:
    intrinsics, size, pose, bent = camera
    return Frame(
        name=name,
        camera=Camera(
            intrinsics=intrinsics,
            size=size,
            world_to_camera=pose,
            distortion=bent,
        ),
        image=image,
        depth=depth,
        projection=projection,
    )


def transform_frame(
    frame: Frame, turn: NDArray[np.float64], shift: NDArray[np.float64], *, scale: float = 1.0
) -> Frame:
    """The frame after its points were transformed to ``scale`` turn x + ``shift``.

    Args:
        frame: with its pose in the old unit; depth maps are in metres before and after.
        turn: (3, 3) rotation.
        shift: (3,) in the new unit.
        scale: new units per old unit.
    """
    pose = frame.camera.world_to_camera.numpy()
    moved = np.eye(4)
    moved[:3, :3] = pose[:3, :3] @ turn.T
    moved[:3, 3] = scale * pose[:3, 3] - moved[:3, :3] @ shift
    return replace(frame, camera=replace(frame.camera, world_to_camera=torch.from_numpy(moved)))


class ProvidesFrames(Protocol):
    """A dataset that has images."""

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """The posed images of a scene in the order in which they were taken; () if it has none.

        Raises:
            UserError: there is no such scene, or the description of its cameras is missing or damaged.
        """


def make_camera(
    who: str,
    *,
    intrinsics: Any,
    size: tuple[int, int],
    world_to_camera: Any = None,
    camera_to_world: Any = None,
    distortion: Lens | Sequence[float] | None = None,
) -> Camera:
    """Make a camera from plain numbers, with exactly one of the two poses.

    Args:
        who: file and view, for messages.
        intrinsics: (3, 3), or a larger matrix that begins with it.
        size: height, width in pixels.
        world_to_camera: (3, 4) or (4, 4), metres.
        camera_to_world: the inverse of it.
        distortion: the lens, or its k1, k2, p1, p2, k3 as in OpenCV.

    Raises:
        ImagesError: numbers are not finite, the pose is not rigid, or intrinsics or size are none.
    """
    if not all(1 <= side <= MOST_SIDE for side in size):
        raise ImagesError(
            f"{who}: an image must have 1 to {MOST_SIDE} pixels a side, is said to be {size[1]} x {size[0]} "
            "(width x height)"
        )
    pose: NDArray[Any] = np.asarray(
        camera_to_world if world_to_camera is None else world_to_camera, np.float64
    )
    matrix = np.asarray(intrinsics, np.float64)
    if matrix.ndim == 2:
        matrix = matrix[:3, :3]
    if pose.shape == (3, 4):
        pose = np.vstack([pose, [0.0, 0.0, 0.0, 1.0]])
    try:
        if camera_to_world is not None:  # checked as given, so that messages show that
            check_rigid(torch.from_numpy(pose), "its pose (camera to world)")
            pose = np.linalg.inv(pose)
        return Camera(intrinsics=matrix, size=size, world_to_camera=pose, distortion=distortion)
    except ValueError as error:
        raise ImagesError(f"{who}: {error}") from error
