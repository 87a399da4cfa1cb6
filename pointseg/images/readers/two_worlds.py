"""Which of two worlds a cloud is in, where a description of cameras has two: the one whose images show it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dinomed3d.lifting import in_image
from dinomed3d.runtime.errors import UserError
from pointseg.files import read_cloud
from pointseg.images.readers.frame import Frame
from pointseg.images.readers.notes import say_once

POINTS, FRAMES = 2000, 20
"""Points and frames that are looked at, at most."""
MOST_BYTES = 2**28
"""Of a cloud that is read for this alone."""
CLEAR = 5.0
"""So many times as many points in view decide."""


def world_in_view(
    path: Path, cloud: Path | None, after: tuple[Frame, ...], before: tuple[Frame, ...]
) -> tuple[Frame, ...]:
    """The frames in the world of a cloud, by the points in view; what was taken is said.

    Args:
        path: the description of the cameras, for messages.
        cloud: file of the points. None, or a large one: not looked at.
        after: the frames in the world after ``applied_transform``, as they stand in the file.
        before: the same frames in the world before it, which is taken where both fit alike.
    """
    points = None if cloud is None else _sample(cloud)
    if points is not None:
        own, other = (_share(frames, points) for frames in (after, before))
        if max(own, other) >= CLEAR * min(own, other) and own != other:
            how = "left as it is" if own > other else "taken back"
            say_once(
                f"{path}: its 'applied_transform' is {how} for {cloud}: {max(own, other):.0%} of the points are then "
                f"in view of an image, {min(own, other):.0%} otherwise"
            )
            return after if own > other else before
    say_once(
        f"{path}: its 'applied_transform' is taken back: the cloud is taken to be in the world before it, as that of a "
        "scanner or of COLMAP is. If the cloud is in the world of 'transform_matrix', remove 'applied_transform' and "
        "'applied_scale' from the file, or name the cloud in 'ply_file_path'"
    )
    return before


def _sample(cloud: Path) -> NDArray[np.float64] | None:
    """(N, 3) some points of a cloud; None if it cannot be read here, which its own reader will say."""
    try:
        found = os.stat(cloud)
        return None if found.st_size > MOST_BYTES else _read(cloud, found.st_mtime_ns)
    except (OSError, UserError):
        return None


@lru_cache(maxsize=256)
def _read(cloud: Path, changed: int) -> NDArray[np.float64] | None:
    scene = read_cloud(cloud)
    points = scene.coord[:: max(1, -(-len(scene) // POINTS))].astype(np.float64) + scene.origin
    points = points[np.isfinite(points).all(1)]
    return points if len(points) else None


def _share(frames: Sequence[Frame], points: NDArray[np.float64]) -> float:
    """Mean share of the points that lie inside an image."""
    step = max(1, -(-len(frames) // FRAMES))
    cloud = torch.from_numpy(points)
    inside = [
        float(in_image(frame.camera.project(cloud)[0], frame.camera.size).double().mean())
        for frame in frames[::step]
    ]
    return float(np.mean(inside)) if inside else 0.0
