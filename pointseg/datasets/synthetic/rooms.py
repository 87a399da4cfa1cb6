"""Rooms of labelled primitives, and simulated scans of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.synthetic.primitives import Box, Cylinder, Panel, Primitive
from pointseg.scene import Scene

SENSOR_NOISE_M = 0.003
NORMAL_NOISE = 0.06
COLOR_NOISE = 9.0
UNSEEN_M = 0.06  # surfaces that face a wall at a smaller distance are not scanned
SPARE = 1.35  # points sampled per point kept: some are occluded or fall into holes


@dataclass(frozen=True)
class Room:
    """The inside of a room: floor at z = 0, corners at (0, 0) and (width, depth)."""

    width: float
    """Size along x in metres."""
    depth: float
    """Size along y in metres."""
    height: float
    """Size along z in metres."""
    primitives: tuple[Primitive, ...]
    """All surfaces and objects."""


def sample_room(room: Room, points: int, rng: np.random.Generator, *, name: str) -> Scene:
    """Simulate a scan of a room: uniform points, noise, light, and holes.

    Args:
        room: the room.
        points: number of points.
        rng: source of randomness.
        name: name of the scene.

    Returns:
        (points,) with color, normal, segment and instance.
    """
    areas = np.array([primitive.shape.area for primitive in room.primitives])
    counts = rng.multinomial(round(points * SPARE), areas / areas.sum())
    drawn = [
        primitive.shape.sample(n, rng) for primitive, n in zip(room.primitives, counts, strict=True)
    ]
    coord = np.concatenate([found for found, _ in drawn])
    normal = np.concatenate([found for _, found in drawn])
    owner = np.repeat(np.arange(len(room.primitives)), counts)
    seen = ~_hidden(room, coord, normal, owner) & ~_in_holes(coord, rng)
    index = rng.permutation(np.flatnonzero(seen))[:points]
    coord, normal, owner = coord[index], normal[index], owner[index]
    color = lit(room, coord, normal, owner) + rng.normal(0, COLOR_NOISE, coord.shape)
    coord = coord + rng.normal(0, SENSOR_NOISE_M, coord.shape)
    normal = normal + rng.normal(0, NORMAL_NOISE, normal.shape)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    labels = np.array(
        [(primitive.label, primitive.instance) for primitive in room.primitives], np.int32
    )
    return Scene(
        coord=coord.astype(np.float32),
        fields={
            "color": np.clip(color, 0, 255).astype(np.float32),
            "normal": normal.astype(np.float32),
            "segment": labels[owner, 0],
            "instance": labels[owner, 1],
        },
        name=name,
    )


def _hidden(
    room: Room, coord: NDArray[np.float64], normal: NDArray[np.float64], owner: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """(N,) whether points are inside another primitive, below one on the floor, or behind one at a wall."""
    hidden = (coord[:, 2] < 0.01) & (normal[:, 2] < -0.5)
    for axis, far in ((0, room.width), (1, room.depth)):
        hidden |= (coord[:, axis] < UNSEEN_M) & (normal[:, axis] < -0.5)
        hidden |= (coord[:, axis] > far - UNSEEN_M) & (normal[:, axis] > 0.5)
    order = np.argsort(coord[:, 0])  # a primitive has few points in its range of x
    x, y, z = coord[order].T.copy()
    for number, primitive in enumerate(room.primitives):
        if isinstance(primitive.shape, Panel):
            continue
        low, high = _bounds(primitive.shape)
        row = slice(np.searchsorted(x, low[0], "left"), np.searchsorted(x, high[0], "right"))
        inside = (y[row] >= low[1]) & (y[row] <= high[1]) & (z[row] >= low[2]) & (z[row] <= high[2])
        near = order[row][inside]
        near = near[owner[near] != number]
        hidden[near] |= primitive.shape.contains(coord[near], 0.001)
    return hidden


def _bounds(shape: Box | Cylinder) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of an axis-aligned box around a shape in any rotation."""
    if isinstance(shape, Box):
        reach = np.hypot(*shape.size[:2]) / 2
        half = np.array([reach, reach, shape.size[2] / 2])
        return np.array(shape.center) - half, np.array(shape.center) + half
    around = np.array([shape.radius, shape.radius, 0])
    return shape.base - around, shape.base + around + (0, 0, shape.height)


def _in_holes(coord: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """(N,) whether points are within a few random balls around surface points."""
    inside = np.zeros(len(coord), bool)
    for _ in range(rng.integers(2, 7)):
        away = coord - coord[rng.integers(len(coord))]
        inside |= np.square(away).sum(1) < rng.uniform(0.08, 0.35) ** 2
    return inside


def lit(
    room: Room, coord: NDArray[np.float64], normal: NDArray[np.float64], owner: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(N, 3) colours in the light of a lamp below the centre of the ceiling."""
    base = np.array([primitive.color for primitive in room.primitives], np.float64)[owner]
    glow = np.array([primitive.glow for primitive in room.primitives])[owner]
    for number, primitive in enumerate(room.primitives):
        if primitive.pattern is not None:
            rows = np.flatnonzero(owner == number)
            base[rows] *= primitive.pattern.factor(coord[rows])[:, None]
    toward = np.array([room.width / 2, room.depth / 2, room.height - 0.3]) - coord
    distance = np.linalg.norm(toward, axis=1) + 1e-9
    facing = np.clip((toward * normal).sum(1) / distance, 0, 1)
    light = 0.5 + 0.5 * facing / (1 + 0.04 * distance**2)
    return base * np.maximum(light, glow)[:, None]
