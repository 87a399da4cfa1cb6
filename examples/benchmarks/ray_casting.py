"""Casts rays at the shapes of generated rooms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.synthetic.primitives import Box, Cylinder, Panel, turn_vectors

Vectors = NDArray[np.float64]


def cast_rays(shape: Box | Cylinder | Panel, origin: Vectors, rays: Vectors) -> Vectors:
    """(N,) distances at which rays meet a shape, in lengths of the rays; infinite where they miss it.

    Args:
        shape: a box or a cylinder; a panel is met from its visible side, outside its openings.
        origin: (3,) start of the rays.
        rays: (N, 3) directions.
    """
    if isinstance(shape, Box):
        return _cast_box(shape, origin, rays)
    if isinstance(shape, Cylinder):
        return _cast_cylinder(shape, origin, rays)
    return _cast_panel(shape, origin, rays)


def surface_at(shape: Box | Cylinder | Panel, points: Vectors) -> tuple[Vectors, Vectors]:
    """Normals and texture coordinates of points on a shape.

    Args:
        shape: the shape.
        points: (N, 3) on its surface.

    Returns:
        (N, 3) outward unit normals; (N, 2) metres along a face (around and up the side of a cylinder).
    """
    if isinstance(shape, Box):
        return _surface_box(shape, points)
    if isinstance(shape, Cylinder):
        return _surface_cylinder(shape, points)
    return _surface_panel(shape, points)


def _cast_box(box: Box, origin: Vectors, rays: Vectors) -> Vectors:
    start = turn_vectors((origin - box.center)[None], -box.yaw)[0]
    steps = turn_vectors(rays, -box.yaw)
    inverse = 1 / np.where(steps == 0, 1e-300, steps)  # so that 0 times it is a number
    middle, half = -start * inverse, np.abs(inverse) * np.array(box.size) / 2
    near, far = (middle - half).max(1), (middle + half).min(1)
    return np.where((near < far) & (near > 0), near, np.inf)


def _cast_cylinder(cylinder: Cylinder, origin: Vectors, rays: Vectors) -> Vectors:
    start = origin - cylinder.base
    (x, y), (u, v) = start[:2], rays[:, :2].T
    square, slope = u**2 + v**2, u * x + v * y
    inside = slope**2 - square * (x**2 + y**2 - cylinder.radius**2)
    found = np.full(len(rays), np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        side = (-slope - np.sqrt(inside)) / square
        level = start[2] + side * rays[:, 2]
        met = (side > 0) & (level >= 0) & (level <= cylinder.height)
        found[met] = side[met]
        for cap in (0.0, cylinder.height):
            away = (cap - start[2]) / rays[:, 2]
            near = (x + away * u) ** 2 + (y + away * v) ** 2 <= cylinder.radius**2
            met = (away > 0) & near & (away < found)
            found[met] = away[met]
    return found


def _cast_panel(panel: Panel, origin: Vectors, rays: Vectors) -> Vectors:
    normal = np.cross(panel.along, panel.across)
    toward = rays @ normal
    with np.errstate(divide="ignore", invalid="ignore"):
        away = (panel.corner - origin) @ normal / toward
        shares = _shares(panel, origin + away[:, None] * rays)
    met = (toward < 0) & (away > 0) & ((shares >= 0) & (shares <= 1)).all(1)
    for a0, c0, a1, c1 in panel.openings:
        met &= ~((shares >= (a0, c0)) & (shares < (a1, c1))).all(1)
    return np.where(met, away, np.inf)


def _surface_box(box: Box, points: Vectors) -> tuple[Vectors, Vectors]:
    local = turn_vectors(points - box.center, -box.yaw)
    axis = (np.abs(local) / np.array(box.size)).argmax(1)
    rows = np.arange(len(points))
    normal = np.zeros(local.shape)
    normal[rows, axis] = np.where(local[rows, axis] < 0, -1.0, 1.0)
    others = np.array([[1, 2], [0, 2], [0, 1]])[axis]
    return turn_vectors(normal, box.yaw), local[rows[:, None], others]


def _surface_cylinder(cylinder: Cylinder, points: Vectors) -> tuple[Vectors, Vectors]:
    away = points - cylinder.base
    off = cylinder.radius - np.hypot(away[:, 0], away[:, 1])
    ends = np.minimum(np.abs(away[:, 2]), np.abs(away[:, 2] - cylinder.height)) < np.abs(off)
    around = away * (1, 1, 0) / cylinder.radius
    up = np.where(away[:, 2] > cylinder.height / 2, 1.0, -1.0)[:, None] * np.array([0.0, 0, 1])
    angle = np.arctan2(away[:, 1], away[:, 0])
    side = np.stack([angle * cylinder.radius, away[:, 2]], axis=1)
    return np.where(ends[:, None], up, around), np.where(ends[:, None], away[:, :2], side)


def _surface_panel(panel: Panel, points: Vectors) -> tuple[Vectors, Vectors]:
    normal = np.cross(panel.along, panel.across)
    edges = np.linalg.norm([panel.along, panel.across], axis=1)
    normals = np.tile(normal / np.linalg.norm(normal), (len(points), 1))
    return normals, _shares(panel, points) * edges


def _shares(panel: Panel, points: Vectors) -> Vectors:
    """(N, 2) positions in shares of the two edges, which are at right angles."""
    edges = np.array([panel.along, panel.across])
    return (points - panel.corner) @ (edges / np.square(edges).sum(1, keepdims=True)).T
