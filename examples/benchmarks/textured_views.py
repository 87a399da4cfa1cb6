"""What cameras see of rooms whose parts have textures: a ray through the centre of each pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dinomed3d.lifting import Camera
from pointseg.datasets.synthetic.primitives import Box, Cylinder, Panel
from pointseg.datasets.synthetic.rooms import Room, lit
from pointseg.scene import Scene

Array = NDArray[np.float64]
Texture = Callable[[Array, Array], Array]
"""Brightness over positions along and up a surface in periods of the texture, about 0 on average."""

SIZE = (240, 320)
FOCAL = 0.6 * SIZE[1]
IMAGE_NOISE, DEPTH_NOISE = 4.0, 0.002
SEEN_M = 0.05
"""How far a point may lie before or behind what a view shows there and be seen."""


@dataclass(frozen=True)
class TexturedRoom:
    """A room, and how each of its P parts looks from near."""

    room: Room
    textures: tuple[Texture, ...]
    period_m: Array
    """(P,)"""
    contrast: Array
    """(P,) share of its own by which the brightness varies."""


@dataclass(frozen=True)
class View:
    """What one camera takes."""

    camera: Camera
    image: NDArray[np.uint8]
    """(H, W, 3)"""
    depth: NDArray[np.float32]
    """(H, W) metres along the camera's axis, 0 where there is nothing."""
    segment: NDArray[np.int32]
    """(H, W) classes, -1 where there is nothing."""


def place_cameras(room: Room, views: int, rng: np.random.Generator) -> tuple[Camera, ...]:
    """Cameras that look around a room, from the side away from where each looks, not from inside anything."""
    turn = rng.uniform(0, 2 * np.pi)
    return tuple(_camera(room, turn + 2 * np.pi * number / views, rng) for number in range(views))


def _camera(room: Room, heading: float, rng: np.random.Generator) -> Camera:
    middle = np.array([room.width, room.depth, 0]) / 2
    yaw, pitch = heading + rng.normal(0, 0.2), rng.uniform(-0.45, 0.05)
    ahead = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    for attempt in range(100):
        back = rng.uniform(0.2, 0.8) * 0.98**attempt
        where = middle - back * ahead * middle + [0, 0, 0]
        where[:2] += rng.normal(0, 0.2, 2)
        where[2] = rng.uniform(1.3, 2.0)
        inside = 0.2 < where[0] < room.width - 0.2 and 0.2 < where[1] < room.depth - 0.2
        if inside and not any(p.shape.contains(where[None], -0.2)[0] for p in room.parts):
            break
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    axes = np.stack([right, np.cross(ahead, right), ahead])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = axes, -axes @ where
    height, width = SIZE
    matrix = np.array([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1.0]])
    return Camera(intrinsics=torch.tensor(matrix), size=SIZE, world_to_camera=torch.tensor(pose))


def render(textured: TexturedRoom, camera: Camera, rng: np.random.Generator) -> View:
    """Image, depths and classes through one camera, a ray through the centre of each pixel."""
    room, (height, width) = textured.room, camera.size
    pose, matrix = camera.world_to_camera.numpy(), camera.intrinsics.numpy()
    v, u = np.mgrid[:height, :width] + 0.5
    plane = np.stack([(u - matrix[0, 2]) / matrix[0, 0], (v - matrix[1, 2]) / matrix[1, 1],
                      np.ones_like(u)], axis=-1)  # fmt: skip
    rays = plane @ pose[:3, :3]  # one metre along the axis: distances are depths
    origin = -pose[:3, :3].T @ pose[:3, 3]
    depth = np.full((height, width), np.inf)
    owner = np.full((height, width), -1)
    for number, part in enumerate(room.parts):
        window = _window(part.shape, camera)
        if window is None:
            continue
        away = part.shape.hit(origin, rays[window].reshape(-1, 3)).reshape(depth[window].shape)
        nearer = away < depth[window]
        depth[window][nearer], owner[window][nearer] = away[nearer], number
    hit = owner >= 0
    points, owners = origin + depth[hit][:, None] * rays[hit], owner[hit]
    normal, brightness = np.zeros_like(points), np.ones(len(points))
    slant = rays[hit] / np.linalg.norm(rays[hit], axis=1, keepdims=True)
    for number in np.unique(owners):
        rows, part = np.flatnonzero(owners == number), room.parts[number]
        normal[rows], (s, t) = (found := part.shape.surface(points[rows]))[0], found[1].T
        period = textured.period_m[number]
        facing = np.abs((slant[rows] * normal[rows]).sum(1))
        pixel = depth[hit][rows] / matrix[0, 0] / np.sqrt(np.maximum(facing, 0.05))
        sharp = np.clip((period / pixel - 1.0) / 1.5, 0, 1)  # a lens blurs what is too fine
        texture = textured.textures[number](s / period, t / period)
        brightness[rows] += textured.contrast[number] * sharp * texture
    color = np.zeros((height, width, 3))
    color[hit] = lit(room, points, normal, owners) * brightness[:, None]
    color += rng.normal(0, IMAGE_NOISE, color.shape)
    labels = np.array([*(part.label for part in room.parts), -1], np.int32)
    noisy = np.where(hit, depth, 0) * (1 + rng.normal(0, DEPTH_NOISE, depth.shape))
    return View(
        camera, np.clip(color, 0, 255).astype(np.uint8), noisy.astype(np.float32), labels[owner]
    )


def _window(shape: Box | Cylinder | Panel, camera: Camera) -> tuple[slice, slice] | None:
    """Rows and columns of the pixels in which a shape can lie; None: it is behind the camera."""
    height, width = camera.size
    whole = (slice(0, height), slice(0, width))
    if isinstance(shape, Panel):
        return whole
    if isinstance(shape, Box):
        reach = np.hypot(*shape.size[:2]) / 2
        half = np.array([reach, reach, shape.size[2] / 2])
        middle = np.array(shape.center)
    else:
        half = np.array([shape.radius, shape.radius, shape.height / 2])
        middle = np.array(shape.base) + (0, 0, shape.height / 2)
    signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), axis=-1).reshape(-1, 3)
    uv, depth = camera.project(torch.from_numpy(middle + signs * half))
    if (depth <= 0).all():
        return None
    if (depth < SEEN_M).any():
        return whole
    low, high = uv.min(0).values.tolist(), uv.max(0).values.tolist()
    rows = slice(max(int(low[1]) - 1, 0), min(int(high[1]) + 2, height))
    columns = slice(max(int(low[0]) - 1, 0), min(int(high[0]) + 2, width))
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def seen(scene: Scene, views: Sequence[View]) -> NDArray[np.bool_]:
    """(N,) whether any view shows a point: something of its class, about as far away as it is."""
    found = np.zeros(len(scene), bool)
    coord, segment = torch.from_numpy(scene.coord), scene["segment"]
    for view in views:
        uv, depth = (values.numpy() for values in view.camera.project(coord))
        height, width = view.depth.shape
        rows = np.flatnonzero((depth > SEEN_M) & (uv >= 0).all(1) & (uv < (width, height)).all(1))
        u, v = uv[rows].astype(int).T
        near = np.abs(view.depth[v, u] - depth[rows]) < SEEN_M
        found[rows] |= near & (view.segment[v, u] == segment[rows])
    return found


def _cells(s: Array, t: Array) -> tuple[Array, Array]:
    """Positions from the middle of their square."""
    return s % 1 - 0.5, t % 1 - 0.5


def plain(s: Array, t: Array) -> Array:
    """Nothing."""
    return np.zeros_like(s)


def stripes(s: Array, t: Array) -> Array:
    """As wide as the gaps between them."""
    return np.sign(s % 1 - 0.5)


def lines(s: Array, t: Array) -> Array:
    """Thin ones, level on what stands upright."""
    return np.where(t % 1 < 0.25, 3.0, -1.0) / 2


def checker(s: Array, t: Array) -> Array:
    """Squares."""
    return np.sign(s % 1 - 0.5) * np.sign(t % 1 - 0.5)


def dots(s: Array, t: Array) -> Array:
    """Bright ones."""
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
    """Thin bright lines both ways."""
    return np.where((s % 1 < 0.25) | (t % 1 < 0.25), 1.1, -0.9)


def zigzag(s: Array, t: Array) -> Array:
    """Stripes that bend."""
    return np.sign((s + np.abs(t % 2 - 1)) % 1 - 0.5)


def rings(s: Array, t: Array) -> Array:
    """Around centres."""
    s, t = _cells(s / 2, t / 2)
    return np.sign(np.sin(4 * np.pi * np.hypot(s, t))) + 0.18


def crosses(s: Array, t: Array) -> Array:
    """Bright ones."""
    s, t = np.abs(_cells(s / 1.5, t / 1.5))
    return np.where((np.minimum(s, t) < 0.1) & (np.maximum(s, t) < 0.35), 1.6, -0.5)


def spots(s: Array, t: Array) -> Array:
    """Dark ones, far from each other."""
    s, t = _cells(s / 1.6, t / 1.6)
    return np.where(s**2 + t**2 < 0.06, -1.9, 0.44)


def speckle(s: Array, t: Array) -> Array:
    """Small squares, bright or dark at random."""
    seed = np.floor(2 * s) * 12.9898 + np.floor(2 * t) * 78.233
    return np.sign((np.sin(seed) * 43758.5453) % 1 - 0.5)


def waves(s: Array, t: Array) -> Array:
    """Soft stripes that wind."""
    return np.sin(2 * np.pi * (s + 0.4 * np.sin(np.pi * t)))
