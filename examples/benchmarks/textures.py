"""Patterns that `textured_rooms.py` puts on surfaces, in periods of the pattern."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Texture = Callable[[Array, Array], Array]
"""Relative brightness at positions along and up a surface, with a mean of about 0."""


def _cells(s: Array, t: Array) -> tuple[Array, Array]:
    """Positions relative to the centre of their unit square."""
    return s % 1 - 0.5, t % 1 - 0.5


def plain(s: Array, t: Array) -> Array:
    """No pattern."""
    return np.zeros_like(s)


def stripes(s: Array, t: Array) -> Array:
    """Stripes as wide as the gaps between them."""
    return np.sign(s % 1 - 0.5)


def lines(s: Array, t: Array) -> Array:
    """Thin lines, horizontal on upright surfaces."""
    return np.where(t % 1 < 0.25, 3.0, -1.0) / 2


def checker(s: Array, t: Array) -> Array:
    """A checkerboard."""
    return np.sign(s % 1 - 0.5) * np.sign(t % 1 - 0.5)


def dots(s: Array, t: Array) -> Array:
    """Bright dots."""
    s, t = _cells(s, t)
    return np.where(s**2 + t**2 < 0.08, 1.5, -0.5)


def holes(s: Array, t: Array) -> Array:
    """Dark dots."""
    return -dots(s, t)


def brick(s: Array, t: Array) -> Array:
    """Long bricks, rows shifted by half of one, dark joints."""
    row = np.floor(t)
    return np.where(((s / 2 + row / 2) % 1 < 0.12) | (t % 1 < 0.25), -1.4, 0.7)


def grid(s: Array, t: Array) -> Array:
    """Thin bright lines in both directions."""
    return np.where((s % 1 < 0.25) | (t % 1 < 0.25), 1.1, -0.9)


def zigzag(s: Array, t: Array) -> Array:
    """Bent stripes."""
    return np.sign((s + np.abs(t % 2 - 1)) % 1 - 0.5)


def rings(s: Array, t: Array) -> Array:
    """Concentric rings."""
    s, t = _cells(s / 2, t / 2)
    return np.sign(np.sin(4 * np.pi * np.hypot(s, t))) + 0.18


def crosses(s: Array, t: Array) -> Array:
    """Bright crosses."""
    s, t = np.abs(_cells(s / 1.5, t / 1.5))
    return np.where((np.minimum(s, t) < 0.1) & (np.maximum(s, t) < 0.35), 1.6, -0.5)


def spots(s: Array, t: Array) -> Array:
    """Dark dots, far apart."""
    s, t = _cells(s / 1.6, t / 1.6)
    return np.where(s**2 + t**2 < 0.06, -1.9, 0.44)


def speckle(s: Array, t: Array) -> Array:
    """Small squares, randomly bright or dark."""
    seed = np.floor(2 * s) * 12.9898 + np.floor(2 * t) * 78.233
    return np.sign((np.sin(seed) * 43758.5453) % 1 - 0.5)


def waves(s: Array, t: Array) -> Array:
    """Soft, winding stripes."""
    return np.sin(2 * np.pi * (s + 0.4 * np.sin(np.pi * t)))
