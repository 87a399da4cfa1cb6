"""Checks whether intrinsics fit the size of their image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dinomed3d.lifting import Camera
from pointseg.images.readers.frame import Frame


def intrinsics_problem(camera: Camera) -> str:
    """Why intrinsics do not fit an image of the camera's size; "" if they do."""
    height, width = camera.size
    matrix = camera.intrinsics
    fx, fy, cx, cy = (abs(float(matrix[at])) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    found = f"K (fx {fx:.5g}, fy {fy:.5g}, cx {cx:.5g}, cy {cy:.5g}) for {width} x {height} pixels"
    scale = np.array([width / 2 / max(cx, 1e-9), height / 2 / max(cy, 1e-9)])
    if abs(np.log(scale[0] / scale[1])) < 0.1 and abs(np.log(scale).mean()) > 0.2:
        factor = float(np.exp(np.log(scale).mean()))
        return (
            f"{found}: K is for another size, since its principal point is the middle of an image of about "
            f"{width / factor:.0f} x {height / factor:.0f}: multiply fx, fy, cx, cy by {factor:.3g}"
        )
    if not (0.2 < cx / width < 0.8 and 0.2 < cy / height < 0.8):
        return f"{found}: the principal point is far from the middle; is K for another size, or for a crop?"
    return ""


def intrinsics_note(frames: Sequence[Frame]) -> str:
    """What a user should know of posed images whose intrinsics do not fit their size; "" where all do.

    Frames whose dataset says itself where points are (``projection``) use no intrinsics.
    """
    used = [frame for frame in frames if frame.projection is None]
    found = [
        (frame.name, problem) for frame in used if (problem := intrinsics_problem(frame.camera))
    ]
    if not found:
        return ""
    name, problem = found[0]
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"view '{name}'{more}: {problem}"
