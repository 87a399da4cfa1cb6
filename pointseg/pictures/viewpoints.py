"""Viewpoints of pictures: how a cloud is framed from above and from the side, and rooms without ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.conventions import PICTURE_UP_AXES

VIEWPOINTS = ("top", "oblique")

# Which axis, and with which sign, becomes the first, second and third. Turns only, no mirrors.
_TURNS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "z": ((0, 1), (1, 1), (2, 1)),
    "-z": ((0, 1), (1, -1), (2, -1)),
    "y": ((0, 1), (2, -1), (1, 1)),
    "-y": ((0, 1), (2, 1), (1, -1)),
    "x": ((1, 1), (2, 1), (0, 1)),
    "-x": ((1, 1), (2, -1), (0, -1)),
}

_AZIMUTH, _ELEVATION = np.radians(-62.0), np.radians(48.0)
"""Direction of the oblique camera: in front, a little to the right, high enough to look over a wall."""
_DISTANCE = 2.6
"""Distance of the oblique camera from the centre, in radii of the cloud."""
_TRIM = 0.4
"""Per cent of the points that may fall outside of the frame on each side: outliers, far returns."""
_AIR = 0.03
"""Share of the picture's sides that stays empty around the points."""
_SUBSET = 200_000
"""Points from which frames and ceilings are found."""


@dataclass(frozen=True)
class Projected:
    """Points in a picture."""

    column: NDArray[np.int32]
    """(M,) the column of each point in pixels, from the left."""
    row: NDArray[np.int32]
    """(M,) the row of each point in pixels, from the top."""
    depth: NDArray[np.float32]
    """(M,) from the camera; the smallest hides the others. In units of the cloud's radius."""
    index: NDArray[np.int64]
    """(M,) which points of the cloud these are."""


def upright(coord: NDArray[np.floating[Any]], up: str) -> NDArray[np.float32]:
    """Turn (N, 3) coordinates so that ``up``, one of ``PICTURE_UP_AXES``, is the third axis; nothing is mirrored.

    Raises:
        ValueError: not one of ``PICTURE_UP_AXES``.
    """
    if up not in PICTURE_UP_AXES:
        raise ValueError(f"upright: 'up' must be one of {', '.join(PICTURE_UP_AXES)}, got {up!r}")
    return np.stack([sign * coord[:, axis] for axis, sign in _TURNS[up]], axis=1, dtype=np.float32)


def centred(coord: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """(N, 3) positions less their median, in their own type: float32 has steps of half a metre far away from zero."""
    subset = coord[:: max(1, len(coord) // _SUBSET)]
    subset = subset[np.isfinite(subset).all(1)]
    return coord - np.median(subset, axis=0).astype(coord.dtype) if len(subset) else coord


def project(coord: NDArray[np.float32], viewpoint: str, size: tuple[int, int]) -> Projected:
    """Put a cloud into a picture so that it fills the frame.

    ``top`` looks down on the cloud: x to the right, y up, parallel. ``oblique`` looks from the front
    right and above, in perspective.

    Args:
        coord: (N, 3) finite, N >= 1, the third axis up.
        viewpoint: one of ``VIEWPOINTS``.
        size: width and height, pixels.

    Raises:
        ValueError: not one of ``VIEWPOINTS``.
    """
    if viewpoint not in VIEWPOINTS:
        raise ValueError(
            f"project: 'viewpoint' must be one of {', '.join(VIEWPOINTS)}, got {viewpoint!r}"
        )
    subset = coord[:: max(1, len(coord) // _SUBSET)]
    low, high = np.percentile(subset, [_TRIM, 100 - _TRIM], axis=0)
    middle = ((low + high) / 2).astype(np.float32)
    radius = float(np.linalg.norm(high - low) / 2) or 1.0
    centred = (coord - middle) / np.float32(radius)
    if viewpoint == "top":
        plane, depth = centred[:, :2], -centred[:, 2]
        index = np.arange(len(coord))
    else:
        right, upward, away = _camera()
        depth = np.float32(_DISTANCE) + centred @ away
        index = np.flatnonzero(depth > 0.2)  # outliers behind the camera are not seen
        depth = depth[index]
        plane = centred[index] @ np.stack([right, upward], axis=1) / depth[:, None]
    pixels = _framed(plane, size)
    inside = ((pixels >= 0) & (pixels < size)).all(1)
    column, row = pixels[inside].astype(np.int32).T
    return Projected(
        column=column, row=row, depth=depth[inside].astype(np.float32), index=index[inside]
    )


def below_ceiling(coord: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which points stay when a room's ceiling is lifted off; all of them where there is none.

    A ceiling is a thin layer in the upper half that lies over half of the ground, with points
    well below it there: neither a table, nor trees, nor the roofs that a plane has scanned.

    Args:
        coord: (N, 3) finite, the third axis up.

    Returns:
        (N,) False for the ceiling and what is above it.
    """
    everything = np.ones(len(coord), bool)
    subset = coord[:: max(1, len(coord) // _SUBSET)]
    if len(subset) < 100:
        return everything
    low, high = np.percentile(subset, [_TRIM, 100 - _TRIM], axis=0)
    height = float(high[2] - low[2])
    if height <= 0 or height > max(high[0] - low[0], high[1] - low[1]) * 1.5:
        return everything
    # The ground in cells that hold about fifty points of the subset.
    cells = int(np.clip(np.sqrt(len(subset) / 50), 4, 48))
    place = np.clip((subset[:, :2] - low[:2]) / np.maximum(high[:2] - low[:2], 1e-6), 0, 0.9999)
    cell = (place * cells).astype(np.int64) @ np.array([cells, 1])
    level = np.clip((subset[:, 2] - low[2]) / height, 0, 0.9999)
    layers = 25
    held = np.zeros((cells * cells, layers), bool)
    held[cell, (level * layers).astype(np.int64)] = True
    occupied = held.any(1)
    # A ceiling takes one layer, or two at their border; the space right below it is empty,
    # and further below is the room.
    roof = held[:, 7:-1] | held[:, 8:]
    gap = ~(held[:, 5:-3] | held[:, 4:-4])
    under = np.cumsum(held, axis=1)[:, :-8] > 0
    # Cells with a wall in them have no gap, and there may be many of them: others must be a quarter.
    most, open_below = (np.mean(a[occupied], axis=0) for a in (roof & under, roof & gap & under))
    candidates = 7 + np.flatnonzero((most >= 0.5) & (open_below >= 0.25))
    candidates = candidates[candidates >= layers // 2]
    if not len(candidates):
        return everything
    lowest = int(candidates[0])
    return np.asarray(coord[:, 2] < low[2] + height * lowest / layers)


def _camera() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Right, upward and viewing directions of the oblique camera, unit length."""
    level = np.cos(_ELEVATION)
    away = -np.array(
        [level * np.cos(_AZIMUTH), level * np.sin(_AZIMUTH), np.sin(_ELEVATION)], np.float32
    )
    right = np.cross(away, [0, 0, 1])
    right /= np.linalg.norm(right)
    return right.astype(np.float32), np.cross(right, away).astype(np.float32), away


def _framed(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """(M, 2) positions, right and up, as pixels, right and down; one scale for both axes."""
    subset = plane[:: max(1, len(plane) // _SUBSET)]
    low, high = np.percentile(subset, [_TRIM, 100 - _TRIM], axis=0)
    slack = 0.02 * (high - low)  # percentiles shave a little off walls
    low = np.maximum(low - slack, subset.min(0))
    high = np.minimum(high + slack, subset.max(0))
    room = np.asarray(size, np.float64) * (1 - 2 * _AIR)
    scale = float(np.min(room / np.maximum(high - low, 1e-9)))
    if not (high > low).any():
        scale = 1.0
    pixels = (plane - (low + high).astype(np.float32) / 2) * np.array([scale, -scale], np.float32)
    return np.asarray(pixels + np.array(size, np.float32) / 2)
