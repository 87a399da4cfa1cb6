"""What generated rooms are made of: boxes, cylinders and panels with a class, a colour and a pattern.

A room stays a list of such parts; points are drawn from their surfaces, and cameras may look at them.
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
    """Its edges lie along x, y and z before it is turned about the vertical through its centre."""

    center: Triple
    size: Triple
    yaw: float = 0.0
    """Radians, counter-clockwise seen from above."""

    @property
    def area(self) -> float:
        """Square metres of its surface."""
        x, y, z = self.size
        return 2 * (x * y + y * z + z * x)

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """(count, 3) points spread evenly over the surface, and (count, 3) unit normals outwards."""
        size = np.array(self.size)
        faces = np.prod(size) / size  # of the pair of faces across each axis
        axis = rng.choice(3, count, p=faces / faces.sum())
        side = rng.integers(0, 2, count) * 2 - 1
        local = rng.uniform(-0.5, 0.5, (count, 3))
        rows = np.arange(count)
        local[rows, axis] = side / 2
        normal = np.zeros((count, 3))
        normal[rows, axis] = side
        return _turned(local * size, self.yaw) + self.center, _turned(normal, self.yaw)

    def contains(self, points: Vectors, margin: float) -> NDArray[np.bool_]:
        """(N,) whether points are more than ``margin`` below the surface."""
        local = np.abs(_turned(points - self.center, -self.yaw))
        inside: NDArray[np.bool_] = local < np.array(self.size) / 2 - margin
        return np.logical_and.reduce(inside, axis=1)

    def hit(self, origin: Vectors, rays: Vectors) -> Vectors:
        """(N,) how far along rays (N, 3) from ``origin`` (3,) they meet it, in lengths of the ray; inf: never."""
        start = _turned((origin - self.center)[None], -self.yaw)[0]
        steps = _turned(rays, -self.yaw)
        inverse = 1 / np.where(steps == 0, 1e-300, steps)  # so that 0 times it is a number
        middle, half = -start * inverse, np.abs(inverse) * np.array(self.size) / 2
        near, far = (middle - half).max(1), (middle + half).min(1)
        return np.where((near < far) & (near > 0), near, np.inf)

    def surface(self, points: Vectors) -> tuple[Vectors, Vectors]:
        """Of (N, 3) points on it: (N, 3) normals outwards; (N, 2) metres along and up their face."""
        local = _turned(points - self.center, -self.yaw)
        axis = (np.abs(local) / np.array(self.size)).argmax(1)
        rows = np.arange(len(points))
        normal = np.zeros(local.shape)
        normal[rows, axis] = np.where(local[rows, axis] < 0, -1.0, 1.0)
        others = np.array([[1, 2], [0, 2], [0, 1]])[axis]
        return _turned(normal, self.yaw), local[rows[:, None], others]

    def placed(self, x: float, y: float, yaw: float) -> Box:
        """Turned about the origin, then moved."""
        cx, cy, cz = _turned(np.array([self.center]), yaw)[0].tolist()
        return replace(self, center=(cx + x, cy + y, cz), yaw=self.yaw + yaw)


@dataclass(frozen=True)
class Cylinder:
    """An upright cylinder with bottom and top."""

    base: Triple
    """Centre of its bottom."""
    radius: float
    height: float

    @property
    def area(self) -> float:
        """Square metres of its surface."""
        return 2 * np.pi * self.radius * (self.height + self.radius)

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """(count, 3) points spread evenly over the surface, and (count, 3) unit normals outwards."""
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

    def hit(self, origin: Vectors, rays: Vectors) -> Vectors:
        """(N,) as Box.hit."""
        start = origin - self.base
        (x, y), (u, v) = start[:2], rays[:, :2].T
        square, slope = u**2 + v**2, u * x + v * y
        inside = slope**2 - square * (x**2 + y**2 - self.radius**2)
        found = np.full(len(rays), np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            side = (-slope - np.sqrt(inside)) / square
            level = start[2] + side * rays[:, 2]
            met = (side > 0) & (level >= 0) & (level <= self.height)
            found[met] = side[met]
            for cap in (0.0, self.height):
                away = (cap - start[2]) / rays[:, 2]
                near = (x + away * u) ** 2 + (y + away * v) ** 2 <= self.radius**2
                met = (away > 0) & near & (away < found)
                found[met] = away[met]
        return found

    def surface(self, points: Vectors) -> tuple[Vectors, Vectors]:
        """As Box.surface; around and up the side, along x and y of the ends."""
        away = points - self.base
        off = self.radius - np.hypot(away[:, 0], away[:, 1])
        ends = np.minimum(np.abs(away[:, 2]), np.abs(away[:, 2] - self.height)) < np.abs(off)
        around = away * (1, 1, 0) / self.radius
        up = np.where(away[:, 2] > self.height / 2, 1.0, -1.0)[:, None] * np.array([0.0, 0, 1])
        angle = np.arctan2(away[:, 1], away[:, 0])
        side = np.stack([angle * self.radius, away[:, 2]], axis=1)
        return np.where(ends[:, None], up, around), np.where(ends[:, None], away[:, :2], side)

    def placed(self, x: float, y: float, yaw: float) -> Cylinder:
        """Turned about the origin, then moved."""
        cx, cy, cz = _turned(np.array([self.base]), yaw)[0].tolist()
        return replace(self, base=(cx + x, cy + y, cz))


@dataclass(frozen=True)
class Panel:
    """A flat rectangle seen from one side, perhaps with rectangular openings."""

    corner: Triple
    along: Triple
    """One edge; ``along`` x ``across`` points to the side that is seen."""
    across: Triple
    openings: tuple[tuple[float, float, float, float], ...] = ()
    """From and to in shares of ``along``, then of ``across``: (a0, c0, a1, c1)."""

    @property
    def area(self) -> float:
        """Square metres of what is left beside the openings."""
        whole = float(np.linalg.norm(np.cross(self.along, self.across)))
        return whole * (1 - sum((a1 - a0) * (c1 - c0) for a0, c0, a1, c1 in self.openings))

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """(count, 3) points spread evenly beside the openings, and (count, 3) unit normals."""
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

    def hit(self, origin: Vectors, rays: Vectors) -> Vectors:
        """(N,) as Box.hit; from the side that is seen, beside the openings."""
        normal = np.cross(self.along, self.across)
        toward = rays @ normal
        with np.errstate(divide="ignore", invalid="ignore"):
            away = (self.corner - origin) @ normal / toward
            shares = self._shares(origin + away[:, None] * rays)
        met = (toward < 0) & (away > 0) & ((shares >= 0) & (shares <= 1)).all(1)
        for a0, c0, a1, c1 in self.openings:
            met &= ~((shares >= (a0, c0)) & (shares < (a1, c1))).all(1)
        return np.where(met, away, np.inf)

    def surface(self, points: Vectors) -> tuple[Vectors, Vectors]:
        """As Box.surface; metres along both edges."""
        normal = np.cross(self.along, self.across)
        edges = np.linalg.norm([self.along, self.across], axis=1)
        normals = np.tile(normal / np.linalg.norm(normal), (len(points), 1))
        return normals, self._shares(points) * edges

    def _shares(self, points: Vectors) -> Vectors:
        """(N, 2) where points lie, in shares of the two edges, which are at right angles."""
        edges = np.array([self.along, self.across])
        return (points - self.corner) @ (edges / np.square(edges).sum(1, keepdims=True)).T


@dataclass(frozen=True)
class Pattern:
    """Stripes, or squares where there are two directions."""

    directions: tuple[Triple, ...]
    """Across which the colour changes."""
    period_m: float
    contrast: float
    """By which share of itself the colour is darker in every other stripe."""

    def factor(self, points: Vectors) -> Vectors:
        """(N,) what colours at these points are multiplied by."""
        stripes = np.zeros(len(points), np.int64)
        for direction in self.directions:
            stripes += np.floor(points @ np.array(direction) / self.period_m).astype(np.int64)
        return np.float64(1) - self.contrast * (stripes % 2)


@dataclass(frozen=True)
class Part:
    """One shape of one object."""

    shape: Box | Cylinder | Panel
    label: int
    color: Triple
    """Red, green, blue, 0 to 255, in full light."""
    pattern: Pattern | None = None
    instance: int = IGNORE
    """Number of the object it belongs to."""
    glow: float = 0.0
    """How much light of its own it gives: 0 to 1, for lamps and windows."""

    def placed(self, x: float, y: float, yaw: float, instance: int) -> Part:
        """Turned about the origin, then moved; of the object with this number."""
        if isinstance(self.shape, Panel):
            raise TypeError("Part.placed: panels are part of the room and stay where they are")
        return replace(self, shape=self.shape.placed(x, y, yaw), instance=instance)


def _turned(vectors: Vectors, yaw: float) -> Vectors:
    """(N, 3) turned about the vertical."""
    if yaw == 0:
        return vectors
    c, s = np.cos(yaw), np.sin(yaw)
    turned = np.array(vectors, np.float64)
    turned[:, 0] = c * vectors[:, 0] - s * vectors[:, 1]
    turned[:, 1] = s * vectors[:, 0] + c * vectors[:, 1]
    return turned
