"""Heights above the ground as results have them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pointseg.files.columns.names import HEIGHT
from pointseg.geometry.ground import height_above_ground
from pointseg.scene import Scene

DIGITS = 3
"""Digits behind the point, as positions of scans have them: millimetres."""


def written_heights(cloud: Scene, *, is_found: bool) -> NDArray[np.float32]:
    """(N,) metres above the ground.

    Args:
        cloud: in metres with z up.
        is_found: whether it has them already, for its model; those of a file may be anybody's.
    """
    found = cloud[HEIGHT] if is_found else height_above_ground(cloud.coord)
    return found[:, 0].round(DIGITS)
