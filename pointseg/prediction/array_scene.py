"""Arrays or a scene that a program gives, checked, as a scene."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.runtime.errors import UserError
from pointseg.files.columns.origin import split_origin
from pointseg.scene import Scene

LARGEST = {"color": 255.0, "strength": 1.0}
"""The largest values of fields that begin at 0."""


def scene_of_arrays(points: Any, given: dict[str, Any], needs: Collection[str]) -> Scene:
    """Arrays as a scene, checked.

    Args:
        points: (N, 3) positions, or a scene.
        given: fields of an array by name; None: not given.
        needs: fields that the model reads; others of a scene may have any values.

    Raises:
        UserError: they are of another type, shape or range; fields were given for a scene.
    """
    if isinstance(points, Scene):
        if any(values is not None for values in given.values()):
            raise UserError("predict: 'points' is a scene, which has its own fields")
        for name in needs:
            if name in LARGEST and name in points:
                _require_range(f"'{name}' of the scene", points[name], LARGEST[name])
        return points
    coord = _array(points, "points", 3).astype(np.float64)
    relative, origin = split_origin(coord)
    fields = {}
    for name, values in given.items():
        if values is not None:
            fields[name] = _field(name, values, len(coord))
    return Scene(coord=relative, fields=fields, origin=origin)


def _field(name: str, values: Any, count: int) -> NDArray[np.float32]:
    """One field of arrays, in its range."""
    word = "intensity" if name == "strength" else name
    array = _array(values, word, 1 if name == "strength" else 3)
    if len(array) != count:
        raise UserError(
            f"predict: '{word}' must have a row for each of the {count} points, got {len(array)}"
        )
    if not np.isfinite(array).all():
        raise UserError(f"predict: '{word}' must be finite")
    if name in LARGEST:
        _require_range(f"'{word}'", array, LARGEST[name])
    return array.astype(np.float32)


def _require_range(what: str, values: NDArray[Any], largest: float) -> None:
    """Refuse values that are not from 0 to the largest one, or are fractions of one that is above 1."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return
    low, high = float(finite.min()), float(finite.max())
    is_fraction = 0 < high <= 1 < largest and values.dtype.kind == "f"
    if low < 0 or high > largest or is_fraction:
        raise UserError(
            f"predict: {what} must be from 0 to {largest:g}, got {low:g} to {high:g}; scale it as in training"
        )


def _array(values: Any, name: str, columns: int) -> NDArray[Any]:
    """Numbers with so many columns, of what the caller gave: an array, a tensor or lists."""
    shape = "(N)" if columns == 1 else f"(N, {columns})"
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        array = np.empty((), object)
    if array.dtype.kind not in "fiu":
        raise UserError(f"predict: '{name}' must be {shape} numbers, got {type(values).__name__}")
    if columns == 1 and array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] != columns:
        raise UserError(f"predict: '{name}' must be {shape}, got {array.shape}")
    return array
