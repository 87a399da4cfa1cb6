"""Scenes for the tests of transforms."""

from __future__ import annotations

import numpy as np

from pointseg.scene import Scene


def room(count: int = 400, *, color: bool = True, seed: int = 0) -> Scene:
    """A random cloud of 4 x 3 x 2 m with every field a scene can have; ``row`` is the point's number."""
    rng = np.random.default_rng(seed)
    coord = (rng.random((count, 3)) * [4, 3, 2] + [10, -7, 1]).astype(np.float32)
    normal = rng.standard_normal((count, 3))
    rows = np.arange(count)
    fields = {
        "row": rows,
        "first": coord.copy(),  # where each point was
        "normal": (normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32),
        "strength": (rows[:, None] / count).astype(np.float32),
        "segment": (rows % 5).astype(np.int32),
        "instance": (rows % 9).astype(np.int32),
        "image_coord": np.repeat(rows[:, None, None], 2, axis=1).repeat(2, 2).astype(np.float32),
        "image_mask": np.stack([rows % 2 == 0, rows % 3 == 0], axis=1),
    }
    if color:
        fields["color"] = (rng.random((count, 3)) * 200 + 20).astype(np.float32)
    return Scene(coord, fields)


def check_fields_stayed_together(scene: Scene, whole: Scene) -> None:
    """Every row of the fields that no transform changes is that of the point's number."""
    rows = scene["row"]
    for key in ("first", "strength", "segment", "instance", "image_coord", "image_mask"):
        np.testing.assert_array_equal(scene[key], whole[key][rows])
    assert set(scene.fields) >= set(whole.fields)
