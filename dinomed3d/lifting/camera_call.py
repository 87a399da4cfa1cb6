"""What a call of `Camera` must look like: messages that say what to write, in place of Python's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from dinomed3d.lifting.lens import Lens

Class = TypeVar("Class", bound=type)

CALL = (
    "Camera(intrinsics=K, size=(height, width), world_to_camera=E), with K (3, 3) in pixels and E (4, 4); "
    "of a pose that maps camera to world, E is numpy.linalg.inv(pose)"
)
NEEDED = ("intrinsics", "size", "world_to_camera")
FIELDS = (*NEEDED, "distortion")
INVERSE = "world_to_camera=numpy.linalg.inv({})"
MEANT = {
    **dict.fromkeys(("k", "intrinsic", "intrinsic_matrix", "camera_matrix"), "intrinsics={}"),
    "pose": "world_to_camera={}, or numpy.linalg.inv({}) if it maps camera to world",
    **dict.fromkeys(("c2w", "camera_to_world", "cam_to_world", "cam2world"), INVERSE),
    **dict.fromkeys(("extrinsics", "extrinsic", "w2c", "world2cam"), "world_to_camera={}"),
    **dict.fromkeys(("width", "height", "shape", "image_size"), "size=(height, width)"),
    **dict.fromkeys(("dist", "dist_coeffs", "distortion_coefficients"), "distortion={}"),
}
"""What people write, in small letters, and what they should: their value stands for the braces."""


def named_fields(kind: Class) -> Class:
    """Let a class refuse calls that do not name its fields, with the call that it takes.

    The new ``__init__`` raises TypeError: values without a name, an unknown name, or one that is missing.
    """
    made: Callable[..., None] = kind.__init__  # type: ignore[misc]

    @wraps(made)
    def checked(self: Any, *values: object, **fields: object) -> None:
        if problem := _problem(values, fields):
            raise TypeError(f"Camera: {problem}")
        made(self, **fields)

    kind.__init__ = checked  # type: ignore[misc]
    return kind


def _problem(values: tuple[object, ...], fields: dict[str, object]) -> str | None:
    if values:
        return f"each value needs its name, got {len(values)} without one; write {CALL}"
    for name in fields:
        if name not in FIELDS:
            meant = MEANT.get(name.lower())
            advice = (
                f"write {meant.replace('{}', name)}" if meant else f"it takes {', '.join(FIELDS)}"
            )
            return f"there is no '{name}'; {advice}"
    if missing := [name for name in NEEDED if name not in fields]:
        return f"lacks {', '.join(missing)}; write {CALL}"
    return None


def as_matrix(name: str, value: object) -> Tensor:
    """A field as a float64 tensor on the CPU, a copy: who changes the array for the next view keeps this one.

    Args:
        name: of the field.
        value: a tensor, an array, or rows of numbers.

    Raises:
        ValueError: not numbers, or of another shape than people mostly confuse with the right one.
    """
    try:
        found = _numbers(value).clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Camera: '{name}' must be a matrix of numbers, got {type(value).__name__}"
        ) from error
    shape = tuple(found.shape)
    if name == "world_to_camera" and shape == (3, 4):
        raise ValueError(f"Camera: '{name}' must be (4, 4), got (3, 4); append the row 0, 0, 0, 1")
    if name == "intrinsics" and shape == (4,):
        raise ValueError(
            f"Camera: '{name}' must be (3, 3), got four numbers; of fx, fy, cx, cy write "
            "((fx, 0, cx), (0, fy, cy), (0, 0, 1))"
        )
    return found


def as_lens(value: object) -> Lens | None:
    """The distortion as a lens; None for none.

    Raises:
        ValueError: no lens, and not the numbers of one.
    """
    if value is None or isinstance(value, Lens):
        return value
    try:
        numbers = _numbers(value).reshape(-1).tolist()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Camera: 'distortion' must be a Lens or numbers, got {type(value).__name__}"
        ) from error
    try:
        return Lens.opencv(numbers)
    except ValueError as error:
        raise ValueError(f"Camera: {error}") from error


def as_size(value: object) -> tuple[int, int]:
    """Height and width as numbers of pixels.

    Raises:
        ValueError: not two whole numbers of at least 1.
    """
    try:
        numbers = [float(side) for side in value]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 2 or any(side < 1 or side % 1 for side in numbers):
        raise ValueError(
            f"Camera: 'size' must be (height, width), whole numbers of at least 1 pixel, got {value!r}"
        )
    return int(numbers[0]), int(numbers[1])


def _numbers(value: object) -> Tensor:
    """As float64 at once: rows of Python's numbers, such as a position of millions of metres, would be rounded."""
    return torch.as_tensor(value, dtype=torch.float64, device="cpu").detach()
