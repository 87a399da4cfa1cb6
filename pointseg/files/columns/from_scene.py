"""A scene as the columns of a file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.columns.names import CLASS_FIELD, HEIGHT, SPARE_CLASS_FIELD, STRENGTH
from pointseg.scene import FIELDS, Scene


def columns_of(scene: Scene) -> dict[str, NDArray[Any]]:
    """A scene as named (N,) columns, in the order in which files are written.

    Positions are float64 where the scene has an origin. A field of k columns becomes k columns with a number
    behind the name.
    """
    columns: dict[str, NDArray[Any]] = {}
    for axis, name in enumerate("xyz"):
        column = scene.coord[:, axis]
        if scene.origin.any():
            columns[name] = column.astype(np.float64) + scene.origin[axis]
        else:
            columns[name] = column
    if "color" in scene:
        color = np.clip(np.rint(scene["color"]), 0, 255).astype(np.uint8)
        columns.update(zip(("red", "green", "blue"), color.T, strict=True))
    if "normal" in scene:
        columns.update(zip(("nx", "ny", "nz"), scene["normal"].T, strict=True))
    own = {key for key in scene.fields if key not in FIELDS or key == HEIGHT}
    if "strength" in scene and not own & set(STRENGTH):
        columns["intensity"] = scene["strength"][:, 0]
    if "segment" in scene:
        columns[CLASS_FIELD] = scene["segment"]
        own -= {CLASS_FIELD, SPARE_CLASS_FIELD}
    if "instance" in scene:
        columns["instance"] = scene["instance"]
    for key in scene.fields:
        if key in own:
            values = scene[key].reshape(len(scene), -1) if len(scene) else np.empty((0, 1))
            many = values.shape[1] > 1
            for number in range(values.shape[1]):
                columns[f"{key}_{number}" if many else key] = values[:, number]
    return columns
