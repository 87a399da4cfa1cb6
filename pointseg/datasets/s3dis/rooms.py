"""The frame of a room: how its cloud was turned when it was aligned."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def turn_of_room(angle: int) -> NDArray[np.float64]:
    """(3, 3) the rotation that ``align_room`` applies."""
    theta = (2 - angle / 180) * math.pi
    # Multiples of a right angle: rounding keeps walls exactly on the axes.
    cos, sin = round(math.cos(theta)), round(math.sin(theta))
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float64)
