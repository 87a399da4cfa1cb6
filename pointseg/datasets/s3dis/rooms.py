"""The rotation by which a room is aligned with the axes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def turn_of_room(angle: int) -> NDArray[np.float64]:
    """(3, 3) rotation about z by (2 - angle / 180) pi, for an angle in degrees of the alignment file."""
    theta = (2 - angle / 180) * math.pi
    # Angles are multiples of 90 degrees: rounding keeps walls exactly on the axes.
    cos, sin = round(math.cos(theta)), round(math.sin(theta))
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float64)
