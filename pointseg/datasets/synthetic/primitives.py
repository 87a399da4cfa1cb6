"""Primitives of generated rooms: boxes, cylinders and panels with a class, a colour and a pattern.

A room is a list of them; points are sampled from their surfaces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pointseg.scene import IGNORE

Vectors = NDArray[np.float64]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Box:
    """A box, rotated about the vertical through its centre."""

    center: Triple
    """Its centre, in metres."""
    size: Triple
    """Its sides before the rotation, in metres."""
    yaw: float = 0.0
    """Its rotation in radians, counter-clockwise seen from above."""

    @property
    def area(self) -> float:
        """Area of its surface in square metres."""
        x, y, z = self.size
        return 2 * (x * y + y * z + z * x)

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """(count, 3) points uniform on the surface, and (count, 3) outward unit normals."""
        size = np.array(self.size)
        faces = np.prod(size) / size  # of the pair of faces across each axis
        axis = rng.choice(3, count, p=faces / faces.sum())
        side = rng.integers(0, 2, count) * 2 - 1
        local = rng.uniform(-0.5, 0.5, (count, 3))
        rows = np.arange(count)
        local[rows, axis] = side / 2
        normal = np.zeros((count, 3))
        normal[rows, axis] = side
        return turn_vectors(local * size, self.yaw) + self.center, turn_vectors(normal, self.yaw)

    def contains(self, points: Vectors, margin: float) -> NDArray[np.bool_]:
        """(N,) whether points are more than ``margin`` below the surface."""
        local = np.abs(turn_vectors(points - self.center, -self.yaw))
        inside: NDArray[np.bool_] = local < np.array(self.size) / 2 - margin
        return np.logical_and.reduce(inside, axis=1)

    def placed(self, x: float, y: float, yaw: float) -> Box:
        """The same shape, rotated about the origin and then translated."""
        cx, cy, cz = turn_vectors(np.array([self.center]), yaw)[0].tolist()
        return replace(self, center=(cx + x, cy + y, cz), yaw=self.yaw + yaw)


@dataclass(frozen=True)
class Cylinder:
    """An upright cylinder with bottom and top."""

    base: Triple
    """Centre of its bottom, in metres."""
    radius: float
    """Its radius in metres."""
    height: float
    """Its height in metres."""

    @property
    def area(self) -> float:
        """Area of its surface in square metres."""
        return 2 * np.pi * self.radius * (self.height + self.radius)

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """(count, 3) points uniform on the surface, and (count, 3) outward unit normals."""
        angle = rng.uniform(0, 2 * np.pi, count)
        around = np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], axis=1)
        where = rng.uniform(0, self.height + self.radius, count)
        on_side = where < self.height
        up = np.where(rng.random(count) < 0.5, 1.0, -1.0)
        reach = np.where(on_side, 1.0, np.sqrt(rng.random(count)))[:, None] * self.radius
        level = np.where(on_side, where, np.where(up > 0, self.height, 0.0))
        points = np.array(self.base) + around * reach
        points[:, 2] += level
        caps = np.stack([np.zeros(count), np.zeros(count), up], axis=1)
        return points, np.where(on_side[:, None], around, caps)

    def contains(self, points: Vectors, margin: float) -> NDArray[np.bool_]:
        """(N,) whether points are more than ``margin`` below the surface."""
        away = points - self.base
        inside = np.square(away[:, :2]).sum(1) < max(self.radius - margin, 0) ** 2
        return inside & (away[:, 2] > margin) & (away[:, 2] < self.height - margin)

    def placed(self, x: float, y: float, yaw: float) -> Cylinder:
        """The same shape, rotated about the origin and then translated."""
        cx, cy, cz = turn_vectors(np.array([self.base]), yaw)[0].tolist()
        return replace(self, base=(cx + x, cy + y, cz))


@dataclass(frozen=True)
class Panel:
    """A rectangle that is visible from one side, perhaps with rectangular openings."""

    corner: Triple
    """One corner, in metres."""
    along: Triple
    """One edge from the corner; ``along`` x ``across`` points to the visible side."""
    across: Triple
    """The other edge from the corner."""
    openings: tuple[tuple[float, float, float, float], ...] = ()
    """Each (a0, c0, a1, c1): start and end in shares of ``along`` (a) and ``across`` (c)."""

    @property
    def area(self) -> float:
        """Area without the openings in square metres."""
        whole = float(np.linalg.norm(np.cross(self.along, self.across)))
        return whole * (1 - sum((a1 - a0) * (c1 - c0) for a0, c0, a1, c1 in self.openings))

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """(count, 3) points uniform outside the openings, and (count, 3) unit normals."""
        shares = rng.random((0, 2))
        while len(shares) < count:
            more = rng.random((count, 2))
            for a0, c0, a1, c1 in self.openings:
                more = more[~((more >= (a0, c0)) & (more < (a1, c1))).all(1)]
            shares = np.concatenate([shares, more])
        points = np.array(self.corner) + shares[:count] @ np.array([self.along, self.across])
        normal = np.cross(self.along, self.across)
        return points, np.tile(normal / np.linalg.norm(normal), (count, 1))

    def contains(self, points: Vectors, margin: float) -> NDArray[np.bool_]:
        """(N,) False: a panel has no inside."""
        return np.zeros(len(points), bool)


@dataclass(frozen=True)
class Pattern:
    """Stripes, or squares if there are two directions."""

    directions: tuple[Triple, ...]
    """Directions in which the colour alternates."""
    period_m: float
    """Width of a stripe in metres."""
    contrast: float
    """Share by which every other stripe is darker."""

    def factor(self, points: Vectors) -> Vectors:
        """(N,) factors of the colours at some points."""
        stripes = np.zeros(len(points), np.int64)
        for direction in self.directions:
            stripes += np.floor(points @ np.array(direction) / self.period_m).astype(np.int64)
        return np.float64(1) - self.contrast * (stripes % 2)


@dataclass(frozen=True)
class Primitive:
    """One shape of one object."""

    shape: Box | Cylinder | Panel
    """Its shape."""
    label: int
    """Its class."""
    color: Triple
    """Red, green, blue, 0 to 255, in full light."""
    pattern: Pattern | None = None
    """Its pattern; None: it has one colour."""
    instance: int = IGNORE
    """Number of its object."""
    glow: float = 0.0
    """Brightness without other light, 0 to 1, for lamps and windows."""

    def placed(self, x: float, y: float, yaw: float, instance: int) -> Primitive:
        """The same primitive, rotated about the origin and then translated, as part of an object."""
        if isinstance(self.shape, Panel):
            raise TypeError("Primitive.placed: panels belong to the room and cannot be moved")
        return replace(self, shape=self.shape.placed(x, y, yaw), instance=instance)


def turn_vectors(vectors: Vectors, yaw: float) -> Vectors:
    """(N, 3) vectors rotated about the vertical by ``yaw`` radians."""
    if yaw == 0:
        return vectors
    c, s = np.cos(yaw), np.sin(yaw)
    turned = np.array(vectors, np.float64)
    turned[:, 0] = c * vectors[:, 0] - s * vectors[:, 1]
    turned[:, 1] = s * vectors[:, 0] + c * vectors[:, 1]
    return turned
