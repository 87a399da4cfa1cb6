"""Posed images that are in memory, as frames."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.runtime.errors import UserError
from pointseg.images.readers.frame import Frame, ImagesError, make_camera
from pointseg.images.readers.intrinsics import intrinsics_note, intrinsics_problem


@dataclass(frozen=True, eq=False)
class ArrayImage:
    """An image in memory."""

    name: str
    """Names it in messages."""
    pixels: NDArray[np.uint8] = field(repr=False)
    """(H, W, 3) red, green, blue."""

    def __str__(self) -> str:
        return self.name

    def read(self) -> NDArray[np.uint8]:
        """See ImageSource.read."""
        return self.pixels

    def key(self) -> str:
        """See ImageSource.key."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class ArrayDepth:
    """A depth map in memory."""

    name: str
    """Names it in messages."""
    depth: NDArray[np.float32] = field(repr=False)
    """(h, w) metres along the camera's axis, 0 where unknown."""

    def __str__(self) -> str:
        return f"depth of {self.name}"

    def read(self) -> NDArray[np.float32]:
        """See DepthSource.read."""
        return self.depth


def array_frame(
    image: NDArray[np.uint8] | Tensor,
    intrinsics: Any,
    *,
    world_to_camera: Any = None,
    camera_to_world: Any = None,
    depth: NDArray[Any] | None = None,
    distortion: Any = None,
    name: str = "image",
    check_intrinsics: bool = True,
) -> Frame:
    """A posed image of arrays or tensors.

    Args:
        image: (H, W, 3) uint8 red, green, blue.
        intrinsics: (3, 3) K of this image; the centre of its first pixel is (0.5, 0.5).
        world_to_camera: (4, 4) or (3, 4) pose, metres; camera axes x right, y down, z forward.
        camera_to_world: the inverse of it; exactly one of the two is given.
        depth: (h, w) floating-point metres along the camera's axis, 0 or not finite where unknown. None: there is none.
        distortion: k1, k2, p1, p2, k3. None: there is none.
        name: of the view, for messages.
        check_intrinsics: whether intrinsics are refused whose principal point is far from the middle of the image, as
            if they were of another size of it; parts cut from an image have such ones.

    Raises:
        ValueError: an image or depth map of another shape or type, such as millimetres in whole numbers; none or
            both of the poses.
        UserError: intrinsics or a pose that are none; intrinsics that seem to be of another size.
    """
    image = np.asarray(_array(image))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"array_frame: 'image' must be (H, W, 3) uint8, got {image.shape} {image.dtype}"
        )
    for argument, values in (
        ("intrinsics", intrinsics),
        ("world_to_camera", world_to_camera),
        ("camera_to_world", camera_to_world),
        ("depth", depth),
        ("distortion", distortion),
    ):
        if isinstance(values, str | os.PathLike):
            raise ValueError(f"array_frame: '{argument}' must be numbers, got {values!r}")
    if (world_to_camera is None) == (camera_to_world is None):
        raise ValueError("array_frame: give either 'world_to_camera' or 'camera_to_world'")
    camera = make_camera(
        f"view '{name}'",
        intrinsics=_array(intrinsics),
        size=(image.shape[0], image.shape[1]),
        world_to_camera=_array(world_to_camera),
        camera_to_world=_array(camera_to_world),
        distortion=_array(distortion),
    )
    if check_intrinsics and (problem := intrinsics_problem(camera)):
        raise ImagesError(
            f"array_frame: 'intrinsics' of view '{name}': {problem}. Of an image that was cut, check_intrinsics=False "
            "takes them"
        )
    source = None
    if depth is not None:
        stored = np.asarray(_array(depth))
        # millimetres of depth cameras, taken as metres, would hide nothing
        if stored.dtype.kind in "iu":
            raise ValueError(
                f"array_frame: 'depth' must be metres as floating-point numbers, got {stored.dtype}, as cameras give "
                "millimetres; divide it by 1000"
            )
        metres = stored.astype(np.float32)
        if metres.ndim != 2:
            raise ValueError(f"array_frame: 'depth' must be (h, w), got {metres.shape}")
        source = ArrayDepth(name, np.where(np.isfinite(metres), metres, np.float32(0)))
    return Frame(name=name, camera=camera, image=ArrayImage(name, image), depth=source)


def require_frames(caller: str, frames: object) -> None:
    """Refuse what is no list of posed images.

    Args:
        caller: the function that was given them, for the message.
        frames: what it was given.

    Raises:
        UserError: it is none, or empty.
    """
    call = "such as [pointseg.array_frame(image, K, camera_to_world=pose)]"
    wrong: object = frames
    if isinstance(frames, Sequence):
        if not frames:
            raise UserError(
                f"{caller}: 'frames' must hold at least one posed image, {call}, got none"
            )
        wrong = next((each for each in frames if not isinstance(each, Frame)), None)
    if frames is None or wrong is not None:
        raise UserError(
            f"{caller}: 'frames' must be a list of posed images, {call}, got {type(wrong).__name__}"
        )


def warn_of_intrinsics(caller: str, frames: Sequence[Frame]) -> None:
    """Warn of posed images whose intrinsics seem to be of another size; ``array_frame`` has checked its own.

    Args:
        caller: the function that was given them, for the warning.
        frames: as ``require_frames`` accepts them.
    """
    if note := intrinsics_note([f for f in frames if not isinstance(f.image, ArrayImage)]):
        warnings.warn(f"{caller}: 'frames': {note}", stacklevel=3)


def _array(values: Any) -> Any:
    """A tensor as an array, wherever it is; an array, or what becomes one, as it is."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values
