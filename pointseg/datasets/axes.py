"""Converts coordinates to metres with z up, as the networks need them."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pointseg.conventions import UP_AXES
from pointseg.scene import Scene

Kind = TypeVar("Kind", np.float32, np.float64)


def upright(scene: Scene, *, unit_m: float = 1.0, up: str = "z") -> Scene:
    """Convert a cloud to metres with z up.

    Args:
        scene: ``coord`` and ``origin`` in another unit, with another vertical axis.
        unit_m: metres per unit.
        up: the vertical axis: "z", "y", or "-y" (cameras). Coordinates and normals are rotated about x: with
            y up (x, y, z) becomes (x, -z, y), with y down (x, z, -y).

    Raises:
        ValueError: an unknown axis, or a unit that is not above 0.
    """
    if up not in UP_AXES or not 0 < unit_m < float("inf"):
        raise ValueError(
            f"upright: 'up' must be z, y or -y and 'unit_m' above 0 metres, got {up!r}, {unit_m}"
        )
    if unit_m == 1 and up == "z":
        return scene
    coord, origin, fields = scene.coord * np.float32(unit_m), scene.origin * unit_m, scene.fields
    if up != "z":
        coord, origin = _turned(coord, up), _turned(origin, up)
        if "normal" in fields:
            fields = {**fields, "normal": _turned(fields["normal"], up)}
    return replace(scene, coord=coord, origin=origin, fields=fields)


def turn_of(up: str) -> NDArray[np.float64]:
    """(3, 3) rotation that ``upright`` applies to column vectors."""
    return np.eye(3) if up == "z" else np.ascontiguousarray(_turned(np.eye(3), up).T)


def _turned(vectors: NDArray[Kind], up: str) -> NDArray[Kind]:
    """(..., 3) vectors with z up."""
    x, y, z = (vectors[..., axis] for axis in range(3))
    return np.stack([x, -z, y] if up == "y" else [x, z, -y], axis=-1)
