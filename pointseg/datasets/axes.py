"""Converts coordinates to metres with z up, as the networks need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from pointseg.conventions import UP_AXES
from pointseg.files.coordinate_systems.units import UnitM
from pointseg.scene import Scene

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame

Kind = TypeVar("Kind", np.float32, np.float64)


@dataclass(frozen=True)
class FileAxes:
    """What the coordinates of a file mean."""

    unit_m: UnitM = 1.0
    """Metres per unit."""
    up: str = "z"
    """The vertical axis: z, y or -y."""


def upright(scene: Scene, *, unit_m: UnitM = 1.0, up: str = "z") -> Scene:
    """Convert a cloud to metres with z up.

    Args:
        scene: ``coord`` and ``origin`` in another unit, with another vertical axis.
        unit_m: metres per unit; three along the axes of the file where they differ.
        up: the vertical axis: "z", "y", or "-y" (cameras). Coordinates and normals are rotated about x: with
            y up (x, y, z) becomes (x, -z, y), with y down (x, z, -y).

    Raises:
        ValueError: an unknown axis, or a unit that is not above 0.
    """
    size = np.asarray(unit_m, np.float64)
    if up not in UP_AXES or not ((size > 0) & np.isfinite(size)).all():
        raise ValueError(
            f"upright: 'up' must be z, y or -y and 'unit_m' above 0 metres, got {up!r}, {unit_m}"
        )
    if (size == 1).all() and up == "z":
        return scene
    coord, origin, fields = scene.coord * size.astype(np.float32), scene.origin * size, scene.fields
    if "normal" in fields and size.ndim and (size != size[0]).any():
        fields = {**fields, "normal": _normals_of_stretched(fields["normal"], size)}
    if up != "z":
        coord, origin = _turned(coord, up), _turned(origin, up)
        if "normal" in fields:
            fields = {**fields, "normal": _turned(fields["normal"], up)}
    return replace(scene, coord=coord, origin=origin, fields=fields)


def upright_frames(
    frames: Sequence[Frame], *, unit_m: float = 1.0, up: str = "z"
) -> tuple[Frame, ...]:
    """Convert the poses of images as ``upright`` converts their cloud.

    Args:
        frames: posed images in the unit and the axes of the cloud.
        unit_m: metres per unit.
        up: the vertical axis: z, y or -y.
    """
    from pointseg.images.readers.frame import transform_frame

    turn = turn_of(up)
    return tuple(transform_frame(frame, turn, np.zeros(3), scale=unit_m) for frame in frames)


def turn_of(up: str) -> NDArray[np.float64]:
    """(3, 3) rotation that ``upright`` applies to column vectors."""
    return np.eye(3) if up == "z" else np.ascontiguousarray(_turned(np.eye(3), up).T)


def _normals_of_stretched(
    normal: NDArray[np.float32], size: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(N, 3) normals of surfaces whose x, y and z are multiplied by these factors."""
    stretched = normal / size
    length = np.linalg.norm(stretched, axis=1, keepdims=True)
    unit = np.divide(stretched, length, out=np.zeros_like(stretched), where=length > 0)
    return unit.astype(np.float32)


def _turned(vectors: NDArray[Kind], up: str) -> NDArray[Kind]:
    """(..., 3) vectors with z up."""
    x, y, z = (vectors[..., axis] for axis in range(3))
    return np.stack([x, -z, y] if up == "y" else [x, z, -y], axis=-1)
