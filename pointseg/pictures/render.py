"""A cloud as a picture: z-buffered splats, shaded by depth, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pointseg.pictures.viewpoints import Projected, below_ceiling, centred, project, upright

PAPER = (255, 255, 255)
"""The colour of the background."""
_FINER = 2
"""Pictures are drawn this many times larger and then reduced, against ragged edges."""
_LARGEST_SPLAT = 11
"""The largest radius in fine pixels, so that points of sparse clouds remain points."""
_SHADOW = 14.0
"""How much a step in depth darkens the pixels behind it."""


def render(
    coord: NDArray[np.floating[Any]],
    colors: NDArray[Any],
    *,
    viewpoint: str = "oblique",
    size: tuple[int, int] = (960, 720),
    up: str = "z",
    cut_ceiling: bool = True,
) -> Image.Image:
    """Draw a cloud.

    The frame follows the points; a few per mille of outliers may fall outside. Splats are as large as
    closes the gaps between neighbouring points, and points behind an edge are darkened.

    Args:
        coord: (N, 3) positions in any unit; those that are not finite are left out.
        colors: (N, 3) red, green, blue, 0 to 255.
        viewpoint: top (x to the right, y up) or oblique (from the front right, above).
        size: width and height, pixels.
        up: the axis that points up: x, y or z, with a minus if it points down.
        cut_ceiling: whether rooms are shown without their ceiling.

    Raises:
        ValueError: wrong shapes, an unknown viewpoint or axis.

    Source: shading after Boucheny 2009, eye-dome lighting.
    """
    if coord.ndim != 2 or coord.shape[1] != 3 or colors.shape != coord.shape:
        raise ValueError(
            f"render: 'coord' and 'colors' must both be (N, 3), got {coord.shape} and {colors.shape}"
        )
    if min(size) < 1:
        raise ValueError(f"render: 'size' must be at least 1 pixel, got {size}")
    turned = upright(centred(coord), up)
    shown = np.flatnonzero(np.isfinite(turned).all(1))
    if cut_ceiling and len(shown):
        shown = shown[below_ceiling(turned[shown])]
    if not len(shown):
        return Image.new("RGB", size, PAPER)
    points = project(turned[shown], viewpoint, (size[0] * _FINER, size[1] * _FINER))
    fine = _draw(
        points, np.asarray(colors[shown], np.float32), (size[1] * _FINER, size[0] * _FINER)
    )
    return Image.fromarray(fine).reduce(_FINER)


def _draw(
    points: Projected, colors: NDArray[np.float32], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """(H, W, 3) picture."""
    depth = np.full(shape[0] * shape[1], np.inf, np.float32)
    owner = np.full(len(depth), -1, np.int64)
    pixel = points.row.astype(np.int64) * shape[1] + points.column
    # From far to near: of several points in a pixel the last one written is the nearest.
    order = np.argsort(-points.depth, kind="stable")
    depth[pixel[order]] = points.depth[order]
    owner[pixel[order]] = points.index[order]
    depth, owner = _splat(depth.reshape(shape), owner.reshape(shape), _radius(owner.reshape(shape)))
    shade = _shade(depth)
    picture = np.full((*shape, 3), PAPER, np.float32)
    drawn = owner >= 0
    picture[drawn] = colors[owner[drawn]] * shade[drawn][:, None]
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _radius(owner: NDArray[np.int64]) -> int:
    """Radius of splats that close the gaps: a little more than the usual distance between points."""
    height, width = (side // 16 * 16 for side in owner.shape)
    held = (owner[:height, :width] >= 0).reshape(height // 16, 16, width // 16, 16).sum((1, 3))
    held = np.sort(held[held > 0])
    if not len(held):
        return _LARGEST_SPLAT
    # As dense as it is around three quarters of the points or more: the far returns of a scanner
    # are few in many tiles, and must not make its near ones large blots.
    per_tile = held[np.searchsorted(np.cumsum(held), held.sum() / 4)]
    return int(np.clip(np.ceil(1.2 * 16 / np.sqrt(per_tile)), 2, _LARGEST_SPLAT))


def _splat(
    depth: NDArray[np.float32], owner: NDArray[np.int64], radius: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Let every pixel's point cover a disc; the nearest point wins, as if each point had been drawn so."""
    inner = (slice(radius, -radius),) * 2
    stride = depth.shape[1] + 2 * radius
    wide = np.pad(depth, radius, constant_values=np.inf).ravel()
    taken = np.pad(owner, radius, constant_values=-1).ravel()
    held = np.flatnonzero(taken >= 0)  # no pixel twice: the writes below do not collide
    near, mine = wide[held], taken[held]
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            if (down, right) == (0, 0) or down * down + right * right > radius * radius:
                continue
            to = held + (down * stride + right)
            wins = near < wide[to]
            to = to[wins]
            wide[to], taken[to] = near[wins], mine[wins]
    return wide.reshape(-1, stride)[inner], taken.reshape(-1, stride)[inner]


def _shade(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) brightness in 0 to 1: pixels that lie behind their neighbours are darker."""
    shade = np.zeros_like(depth)
    height, width = depth.shape
    drawn = np.isfinite(depth)
    solid = np.where(drawn, depth, np.float32(1e6))  # nothing is in front of empty pixels
    for reach in (2, 5):
        for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            to = (_span(down * reach, height), _span(right * reach, width))
            source = (_span(-down * reach, height), _span(-right * reach, width))
            step = solid[to] - solid[source]
            shade[to] += np.clip(step, 0, 0.06) / reach
    return np.exp(-_SHADOW / 8 * shade, where=drawn, out=np.ones_like(depth))


def _span(shift: int, length: int) -> slice:
    return slice(max(0, shift), length + min(0, shift))
