"""Furnished rooms as RGB-D views and as clouds, in which some classes differ by their texture alone.

The shapes are those of pointseg's generated rooms. The colour of an object is independent of its class; its
texture determines the class, but is finer than the voxels and visible in the images only. Points have the mean
colour of their surroundings, as from a coarse scanner. So a network without images cannot tell floors of planks
from carpet, or walls of plaster from brick; doors, windows, pictures, lamps and furniture also differ by shape
and place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import textures
import torch
from numpy.typing import NDArray
from ray_casting import cast_rays, surface_at
from textures import Array, Texture

from dinomed3d.lifting import Camera
from pointseg.datasets.classes import ClassList, distinct_colors
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.named_scenes import require_scene, require_split
from pointseg.datasets.synthetic import furniture
from pointseg.datasets.synthetic.layout import build_room
from pointseg.datasets.synthetic.primitives import Box, Cylinder, Panel, Primitive, Triple
from pointseg.datasets.synthetic.rooms import Room, lit, sample_room
from pointseg.images.readers.frame import Frame
from pointseg.scene import Scene

SIZE = (240, 320)
FOCAL = 0.6 * SIZE[1]
IMAGE_NOISE, DEPTH_NOISE = 4.0, 0.002
DEPTH_TOLERANCE_M = 0.05
"""Depth tolerance within which a view shows a point, metres."""
FIRST_ROOM = {"train": 0, "val": 1_000_000, "test": 2_000_000}
"""Number of the first room of each split, so that no room is in two splits."""
PERIOD_M, CONTRAST = (0.05, 0.08), (0.4, 0.6)
KEPT_UNSEEN = 0.05
"""Share of the points visible in no image that stay in the cloud."""
PAINTS = tuple(
    (100 + 0.4 * red, 100 + 0.4 * green, 100 + 0.4 * blue)
    for red, green, blue in furniture.WOODS + furniture.FABRICS
)
"""Colours, the same choice for objects of all classes."""


TEXTURES: dict[str, Texture] = {
    "planks": textures.stripes, "carpet": textures.speckle, "plaster": textures.dots, "brick": textures.brick,
    "ceiling": textures.plain, "window": textures.grid, "door": textures.zigzag, "picture": textures.rings,
    "table": textures.checker, "chair": textures.holes, "sofa": textures.waves, "bed": textures.crosses,
    "shelf": textures.lines, "lamp": textures.spots,
}  # fmt: skip
"""The texture of each class."""
NAMES = tuple(TEXTURES)
CHOICES: dict[int, tuple[str, ...]] = {
    furniture.FLOOR: ("planks", "carpet"), furniture.WALL: ("plaster", "brick"),
    furniture.CEILING: ("ceiling",), furniture.WINDOW: ("window",), furniture.DOOR: ("door",),
    furniture.PICTURE: ("picture",), furniture.TABLE: ("table",), furniture.CHAIR: ("chair",),
    furniture.SOFA: ("sofa",), furniture.BED: ("bed",), furniture.SHELF: ("shelf",),
    furniture.LAMP: ("lamp",),
}  # fmt: skip
"""Classes that an object of a shape may have; drawn for each object."""
TEXTURE_ONLY = tuple(n for names in CHOICES.values() if len(names) > 1 for n in names)
"""Classes that differ from another one by texture alone."""


@dataclass(frozen=True)
class TexturedRoom:
    """A room with the texture of each of its P primitives."""

    room: Room
    textures: tuple[Texture, ...]
    period_m: Array
    """(P,) length of a period."""
    contrast: Array
    """(P,) relative variation of the brightness."""


@dataclass(frozen=True)
class View:
    """One RGB-D image with the class of each pixel."""

    camera: Camera
    image: NDArray[np.uint8]
    """(H, W, 3)"""
    depth: NDArray[np.float32]
    """(H, W) metres along the camera's axis, 0 where there is nothing."""
    segment: NDArray[np.int32]
    """(H, W) classes, -1 where there is nothing."""


def place_cameras(room: Room, views: int, rng: np.random.Generator) -> tuple[Camera, ...]:
    """Cameras that look around a room, each from the opposite side, none of them inside an object."""
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
        if inside and not any(p.shape.contains(where[None], -0.2)[0] for p in room.primitives):
            break
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    axes = np.stack([right, np.cross(ahead, right), ahead])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = axes, -axes @ where
    height, width = SIZE
    matrix = np.array([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1.0]])
    return Camera(intrinsics=torch.tensor(matrix), size=SIZE, world_to_camera=torch.tensor(pose))


def render(textured: TexturedRoom, camera: Camera, rng: np.random.Generator) -> View:
    """Image, depths and classes of one camera, by a ray through the centre of each pixel."""
    room, (height, width) = textured.room, camera.size
    pose, matrix = camera.world_to_camera.numpy(), camera.intrinsics.numpy()
    v, u = np.mgrid[:height, :width] + 0.5
    plane = np.stack([(u - matrix[0, 2]) / matrix[0, 0], (v - matrix[1, 2]) / matrix[1, 1],
                      np.ones_like(u)], axis=-1)  # fmt: skip
    rays = plane @ pose[:3, :3]  # of length one along the axis, so that distances are depths
    origin = -pose[:3, :3].T @ pose[:3, 3]
    depth = np.full((height, width), np.inf)
    owner = np.full((height, width), -1)
    for number, primitive in enumerate(room.primitives):
        window = _window(primitive.shape, camera)
        if window is None:
            continue
        away = cast_rays(primitive.shape, origin, rays[window].reshape(-1, 3))
        away = away.reshape(depth[window].shape)
        nearer = away < depth[window]
        depth[window][nearer], owner[window][nearer] = away[nearer], number
    hit = owner >= 0
    points, owners = origin + depth[hit][:, None] * rays[hit], owner[hit]
    normal, brightness = np.zeros_like(points), np.ones(len(points))
    slant = rays[hit] / np.linalg.norm(rays[hit], axis=1, keepdims=True)
    for number in np.unique(owners):
        rows, primitive = np.flatnonzero(owners == number), room.primitives[number]
        normal[rows], (s, t) = (found := surface_at(primitive.shape, points[rows]))[0], found[1].T
        period = textured.period_m[number]
        facing = np.abs((slant[rows] * normal[rows]).sum(1))
        pixel = depth[hit][rows] / matrix[0, 0] / np.sqrt(np.maximum(facing, 0.05))
        sharp = np.clip((period / pixel - 1.0) / 1.5, 0, 1)  # too fine a texture is blurred
        texture = textured.textures[number](s / period, t / period)
        brightness[rows] += textured.contrast[number] * sharp * texture
    color = np.zeros((height, width, 3))
    color[hit] = lit(room, points, normal, owners) * brightness[:, None]
    color += rng.normal(0, IMAGE_NOISE, color.shape)
    labels = np.array([*(primitive.label for primitive in room.primitives), -1], np.int32)
    noisy = np.where(hit, depth, 0) * (1 + rng.normal(0, DEPTH_NOISE, depth.shape))
    return View(
        camera, np.clip(color, 0, 255).astype(np.uint8), noisy.astype(np.float32), labels[owner]
    )


def _window(shape: Box | Cylinder | Panel, camera: Camera) -> tuple[slice, slice] | None:
    """Rows and columns of the pixels that a shape can cover; None if it is behind the camera."""
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
    if (depth < DEPTH_TOLERANCE_M).any():
        return whole
    low, high = uv.min(0).values.tolist(), uv.max(0).values.tolist()
    rows = slice(max(int(low[1]) - 1, 0), min(int(high[1]) + 2, height))
    columns = slice(max(int(low[0]) - 1, 0), min(int(high[0]) + 2, width))
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def visible_points(scene: Scene, views: Sequence[View]) -> NDArray[np.bool_]:
    """(N,) whether any view shows a point: the same class at the same depth."""
    found = np.zeros(len(scene), bool)
    coord, segment = torch.from_numpy(scene.coord), scene["segment"]
    for view in views:
        uv, depth = (values.numpy() for values in view.camera.project(coord))
        height, width = view.depth.shape
        rows = np.flatnonzero(
            (depth > DEPTH_TOLERANCE_M) & (uv >= 0).all(1) & (uv < (width, height)).all(1)
        )
        u, v = uv[rows].astype(int).T
        near = np.abs(view.depth[v, u] - depth[rows]) < DEPTH_TOLERANCE_M
        found[rows] |= near & (view.segment[v, u] == segment[rows])
    return found


def textured_room(rng: np.random.Generator) -> TexturedRoom:
    """A room whose objects have random classes of CHOICES, random colours, and the textures of the classes."""
    plan = build_room(rng)
    looks: dict[Any, tuple[int, Triple, float, float]] = {}
    primitives, period, contrast = [], [], []
    for number, primitive in enumerate(plan.primitives):
        thing = (
            primitive.label,
            primitive.instance if primitive.instance >= 0 else f"panel {number}",
        )
        if thing not in looks:
            name = CHOICES[primitive.label][int(rng.integers(len(CHOICES[primitive.label])))]
            color = furniture.tint(PAINTS, rng)
            looks[thing] = (
                NAMES.index(name),
                color,
                rng.uniform(*PERIOD_M),
                rng.uniform(*CONTRAST),
            )
        label, color, width, strength = looks[thing]
        primitives.append(Primitive(primitive.shape, label, color, None, primitive.instance))
        period.append(width)
        contrast.append(strength)
    textures = tuple(TEXTURES[NAMES[primitive.label]] for primitive in primitives)
    room = replace(plan, primitives=tuple(primitives))
    return TexturedRoom(room, textures, np.array(period), np.array(contrast))


@lru_cache(maxsize=512)
def _room(seed: int, number: int, views: int, points: int) -> tuple[Scene, tuple[View, ...]]:
    """The cloud of a room and its views; made once in each process."""
    rng = np.random.default_rng([seed, number])
    textured = textured_room(rng)
    cameras = place_cameras(textured.room, views, rng)
    shots = tuple(render(textured, camera, rng) for camera in cameras)
    scene = sample_room(textured.room, points, rng, name=f"room{number:07d}")
    kept = visible_points(scene, shots) | (rng.random(len(scene)) < KEPT_UNSEEN)
    return scene.select(kept), shots


@dataclass(frozen=True)
class Rendered:
    """The image or depth map of one view, rendered when it is read."""

    seed: int
    number: int
    views: int
    points: int
    view: int
    what: str = "image"

    def __str__(self) -> str:
        return f"{self.what} {self.view} of room {self.number}"

    def read(self) -> NDArray[Any]:
        """See ImageSource.read and DepthSource.read."""
        shots = _room(self.seed, self.number, self.views, self.points)[1]
        found: NDArray[Any] = getattr(shots[self.view], self.what)
        return found

    def key(self) -> str:
        """See ImageSource.key."""
        return f"textured-rooms-1 {self.seed} {self.number} {self.views} {self.points} {self.view}"


class TexturedRooms:
    """The rooms as a dataset with images; the same seed gives the same rooms, anywhere.

    Args:
        seed: of the rooms.
        rooms: number of rooms in train, val and test.
        views: images of a room.
        points: points of a room, before most of those that no image shows are left out.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        rooms: tuple[int, int, int] = (40, 8, 16),
        views: int = 8,
        points: int = 20_000,
    ) -> None:
        if min(rooms) < 1 or views < 1 or points < 1 or seed < 0:
            raise DatasetError(
                f"TexturedRooms: 'rooms', 'views', 'points' must be at least 1, 'seed' at least 0, "
                f"got {rooms}, {views}, {points}, {seed}"
            )
        self.name = "textured-rooms"
        texture_only = tuple(NAMES.index(name) for name in TEXTURE_ONLY)
        others = set(range(len(NAMES))) - set(texture_only)
        groups = {"texture only": texture_only, "others": tuple(others)}
        self.classes = ClassList(NAMES, distinct_colors(len(NAMES)), groups)
        self.fields = frozenset({"color", "normal"})
        self.seed, self.views, self.points = seed, views, points
        self._scenes = {
            split: tuple(f"room{FIRST_ROOM[split] + number:07d}" for number in range(count))
            for split, count in zip(FIRST_ROOM, rooms, strict=True)
        }

    def splits(self) -> tuple[str, ...]:
        """train, val, test."""
        return tuple(self._scenes)

    def scenes(self, split: str) -> tuple[str, ...]:
        """See Dataset.scenes."""
        require_split(self.name, split, self.splits())
        return self._scenes[split]

    def load(self, split: str, scene: str) -> Scene:
        """See Dataset.load."""
        return _room(self.seed, self._number(split, scene), self.views, self.points)[0]

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """See ProvidesFrames.frames."""
        number = self._number(split, scene)
        return tuple(
            Frame(
                name=f"view{view}",
                camera=shot.camera,
                image=Rendered(self.seed, number, self.views, self.points, view),
                depth=Rendered(self.seed, number, self.views, self.points, view, "depth"),
            )
            for view, shot in enumerate(_room(self.seed, number, self.views, self.points)[1])
        )

    def shots(self, split: str, scene: str) -> tuple[View, ...]:
        """The RGB-D images of a room, with the classes of the pixels."""
        return _room(self.seed, self._number(split, scene), self.views, self.points)[1]

    def _number(self, split: str, scene: str) -> int:
        require_scene(self.name, split, scene, self.scenes(split))
        return int(scene.removeprefix("room"))
