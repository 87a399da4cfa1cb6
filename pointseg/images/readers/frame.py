"""One posed image of a scene: where it was taken from, its pixels and its depths, read when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dinomed3d.lifting import Camera, check_rigid
from dinomed3d.runtime.errors import UserError


class ImagesError(UserError):
    """An image, a depth map or a camera that is not there, is damaged, or does not fit the others."""


class ImageSource(Protocol):
    """Where the pixels of an image come from; ``str()`` of it names the file."""

    def read(self) -> NDArray[np.uint8]:
        """(H, W, 3) red, green, blue.

        Raises:
            UserError: it is missing or damaged; the message names the file.
        """

    def key(self) -> str:
        """Stands for the content: another image has another key.

        Raises:
            UserError: it is missing.
        """


class DepthSource(Protocol):
    """Where the depths of an image come from; ``str()`` of it names the file."""

    def read(self) -> NDArray[np.float32]:
        """(h, w) metres along the camera's axis, 0 where unknown; any size, the field of view of the image.

        Raises:
            UserError: it is missing or damaged; the message names the file.
        """


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A posed image, perhaps with depths. Small, and can be sent to other processes: nothing is read yet."""

    name: str
    """Unique among the frames of its scene."""
    camera: Camera
    """Pose in the world of the scene (``coord + origin``, metres); intrinsics for the image as it is read."""
    image: ImageSource
    depth: DepthSource | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Tensors would go to other processes as open files, of which there are too few for many frames.
        camera = self.camera
        bent = None if camera.distortion is None else camera.distortion.tolist()
        pose = camera.world_to_camera.tolist()
        plain = (camera.intrinsics.tolist(), camera.size, pose, bent)
        return _restored, (self.name, plain, self.image, self.depth)

    def read_image(self) -> NDArray[np.uint8]:
        """(H, W, 3) the image, of the size that the camera has.

        Raises:
            UserError: it is missing or damaged, or its size is not that of the intrinsics.
        """
        image = self.image.read()
        if image.shape[:2] != self.camera.size:
            (height, width), (wanted_height, wanted_width) = image.shape[:2], self.camera.size
            raise ImagesError(
                f"{self.image}: is {width} x {height} pixels (width x height), but the intrinsics (K) of view "
                f"'{self.name}' are for {wanted_width} x {wanted_height}; give the image that was calibrated, "
                f"or scale K to this one"
            )
        return image

    def read_depth(self) -> NDArray[np.float32] | None:
        """(h, w) metres, 0 where unknown; None: the frame has none.

        Raises:
            UserError: the map is missing or damaged, or its sides are in another proportion than
                those of the image.
        """
        if self.depth is None:
            return None
        depth = self.depth.read()
        (height, width), (h, w) = self.camera.size, depth.shape
        if not 0.95 < (w / h) / (width / height) < 1.05:  # ScanNet's differ by half a percent
            raise ImagesError(
                f"{self.depth}: is {w} x {h} pixels (width x height), which does not show what the image of "
                f"view '{self.name}' with {width} x {height} does; align the depths with the image first"
            )
        return depth


def _restored(
    name: str, camera: tuple[Any, ...], image: ImageSource, depth: DepthSource | None
) -> Frame:
    intrinsics, size, pose, bent = camera
    return Frame(
        name=name,
        camera=Camera(
            intrinsics=torch.tensor(intrinsics, dtype=torch.float64),
            size=size,
            world_to_camera=torch.tensor(pose, dtype=torch.float64),
            distortion=None if bent is None else torch.tensor(bent, dtype=torch.float64),
        ),
        image=image,
        depth=depth,
    )


def transform_frame(
    frame: Frame, turn: NDArray[np.float64], shift: NDArray[np.float64], *, scale: float = 1.0
) -> Frame:
    """The same frame where all points were moved: x became ``scale`` turn x + ``shift``.

    Args:
        frame: its pose in the unit of the points before; its depths are metres before and after.
        turn: (3, 3) rotation.
        shift: (3,) in the new unit.
        scale: new units per old one.
    """
    pose = frame.camera.world_to_camera.numpy()
    moved = np.eye(4)
    moved[:3, :3] = pose[:3, :3] @ turn.T
    moved[:3, 3] = scale * pose[:3, 3] - moved[:3, :3] @ shift
    return replace(frame, camera=replace(frame.camera, world_to_camera=torch.from_numpy(moved)))


class ProvidesFrames(Protocol):
    """A dataset that has images."""

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """The posed images of a scene, in the order in which they were taken; () where it has none.

        Raises:
            UserError: there is no such scene, or what describes its cameras is missing or damaged.
        """


def make_camera(
    who: str,
    *,
    intrinsics: Any,
    size: tuple[int, int],
    world_to_camera: Any = None,
    camera_to_world: Any = None,
    distortion: Sequence[float] | None = None,
) -> Camera:
    """A camera from plain numbers; exactly one of the two poses is given.

    Args:
        who: file and view, for messages.
        intrinsics: (3, 3), or more of which the upper left counts.
        size: height, width in pixels.
        world_to_camera: (3, 4) or (4, 4), metres.
        camera_to_world: the same, the other way.
        distortion: k1, k2, p1, p2, k3.

    Raises:
        ImagesError: numbers that are not finite, a pose that is not rigid, intrinsics that are none.
    """
    pose: NDArray[Any] = np.asarray(
        camera_to_world if world_to_camera is None else world_to_camera, np.float64
    )
    matrix = np.asarray(intrinsics, np.float64)[:3, :3]
    if pose.shape == (3, 4):
        pose = np.vstack([pose, [0.0, 0.0, 0.0, 1.0]])
    try:
        if (
            camera_to_world is not None
        ):  # before it is inverted, so that messages show what was given
            check_rigid(torch.from_numpy(pose), "its pose (camera to world)")
            pose = np.linalg.inv(pose)
        return Camera(
            intrinsics=torch.from_numpy(matrix.copy()),
            size=size,
            world_to_camera=torch.from_numpy(pose.copy()),
            distortion=None
            if distortion is None
            else torch.tensor(list(distortion), dtype=torch.float64),
        )
    except ValueError as error:
        raise ImagesError(f"{who}: {error}") from error
