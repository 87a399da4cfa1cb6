"""Furnished rooms as RGB-D views and as clouds, in which some classes differ by their texture alone.

The shapes are those of pointseg's generated rooms. Each object has a colour that says nothing of its
class, and a texture that says all of it: finer than the voxels, on the images only. The points carry
the mean colour of their surroundings, as a coarse scanner sees it. So floors of planks and of carpet,
and walls of plaster and brick are the same to a network without images; doors, windows, pictures,
lamps and furniture are told apart by shape and place as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import textured_views as look
from numpy.typing import NDArray
from textured_views import Texture, TexturedRoom, View, place_cameras, render, seen

from pointseg.datasets.dataset import (
    ClassList,
    DatasetError,
    distinct_colors,
    require_scene,
    require_split,
)
from pointseg.datasets.synthetic import furniture
from pointseg.datasets.synthetic.layout import build_room
from pointseg.datasets.synthetic.primitives import Part, Triple
from pointseg.datasets.synthetic.rooms import sample_room
from pointseg.images.readers.frame import Frame
from pointseg.scene import Scene

FIRST_ROOM = {"train": 0, "val": 1_000_000, "test": 2_000_000, "other": 3_000_000}
"""Number of the first room of each split: no room is in two."""
PERIOD_M, CONTRAST = (0.05, 0.08), (0.4, 0.6)
UNSEEN = 0.05
"""Share of the points that no image shows which are in the cloud nevertheless."""
PAINTS = tuple(
    (100 + 0.4 * red, 100 + 0.4 * green, 100 + 0.4 * blue)
    for red, green, blue in furniture.WOODS + furniture.FABRICS
)
"""Colours of all objects alike."""


TEXTURES: dict[str, Texture] = {
    "planks": look.stripes, "carpet": look.speckle, "plaster": look.dots, "brick": look.brick,
    "ceiling": look.plain, "window": look.grid, "door": look.zigzag, "picture": look.rings,
    "table": look.checker, "chair": look.holes, "sofa": look.waves, "bed": look.crosses,
    "shelf": look.lines, "lamp": look.spots,
}  # fmt: skip
"""What the objects of each class look like from near."""
NAMES = tuple(TEXTURES)
CHOICES: dict[int, tuple[str, ...]] = {
    furniture.FLOOR: ("planks", "carpet"), furniture.WALL: ("plaster", "brick"),
    furniture.CEILING: ("ceiling",), furniture.WINDOW: ("window",), furniture.DOOR: ("door",),
    furniture.PICTURE: ("picture",), furniture.TABLE: ("table",), furniture.CHAIR: ("chair",),
    furniture.SOFA: ("sofa",), furniture.BED: ("bed",), furniture.SHELF: ("shelf",),
    furniture.LAMP: ("lamp",),
}  # fmt: skip
"""What an object of a shape may be; drawn for each object."""
ALIKE = tuple(n for names in CHOICES.values() if len(names) > 1 for n in names)
"""Classes that have the shape of another one."""


def textured_room(rng: np.random.Generator) -> TexturedRoom:
    """A room whose objects have classes of CHOICES, colours that tell nothing, and textures that do."""
    plan = build_room(rng)
    looks: dict[Any, tuple[int, Triple, float, float]] = {}
    parts, period, contrast = [], [], []
    for number, part in enumerate(plan.parts):
        thing = (part.label, part.instance if part.instance >= 0 else f"panel {number}")
        if thing not in looks:
            name = CHOICES[part.label][int(rng.integers(len(CHOICES[part.label])))]
            color = furniture.tint(PAINTS, rng)
            looks[thing] = (
                NAMES.index(name),
                color,
                rng.uniform(*PERIOD_M),
                rng.uniform(*CONTRAST),
            )
        label, color, width, strength = looks[thing]
        parts.append(Part(part.shape, label, color, None, part.instance))
        period.append(width)
        contrast.append(strength)
    textures = tuple(TEXTURES[NAMES[part.label]] for part in parts)
    room = replace(plan, parts=tuple(parts))
    return TexturedRoom(room, textures, np.array(period), np.array(contrast))


@lru_cache(maxsize=512)
def _room(seed: int, number: int, views: int, points: int) -> tuple[Scene, tuple[View, ...]]:
    """The cloud of a room and its views, in a process made once."""
    rng = np.random.default_rng([seed, number])
    textured = textured_room(rng)
    cameras = place_cameras(textured.room, views, rng)
    shots = tuple(render(textured, camera, rng) for camera in cameras)
    scene = sample_room(textured.room, points, rng, name=f"room{number:07d}")
    kept = seen(scene, shots) | (rng.random(len(scene)) < UNSEEN)
    return scene.select(kept), shots


@dataclass(frozen=True)
class Rendered:
    """The image, the depths or the classes of one view, rendered when they are read."""

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
        seed: another one, other rooms.
        rooms: how many train, val and test have; and others, which only image encoders learn from.
        views: images of a room.
        points: points of a room before those are left out that no image shows (most of them).
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        rooms: tuple[int, int, int, int] = (40, 8, 16, 40),
        views: int = 8,
        points: int = 20_000,
    ) -> None:
        if min(rooms) < 1 or views < 1 or points < 1 or seed < 0:
            raise DatasetError(
                f"TexturedRooms: 'rooms', 'views', 'points' must be at least 1, 'seed' at least 0, "
                f"got {rooms}, {views}, {points}, {seed}"
            )
        self.name = "textured-rooms"
        alike = tuple(NAMES.index(name) for name in ALIKE)
        groups = {"alike": alike, "shaped": tuple(set(range(len(NAMES))) - set(alike))}
        self.classes = ClassList(NAMES, distinct_colors(len(NAMES)), groups)
        self.fields = frozenset({"color", "normal"})
        self.seed, self.views, self.points = seed, views, points
        self._scenes = {
            split: tuple(f"room{FIRST_ROOM[split] + number:07d}" for number in range(count))
            for split, count in zip(FIRST_ROOM, rooms, strict=True)
        }

    def splits(self) -> tuple[str, ...]:
        """train, val, test, other."""
        return tuple(self._scenes)

    def scenes(self, split: str) -> tuple[str, ...]:
        """See Dataset.scenes."""
        require_split(self.name, split, self.splits())
        return self._scenes[split]

    def load(self, split: str, scene: str) -> Scene:
        """See Dataset.load."""
        return _room(self.seed, self._number(split, scene), self.views, self.points)[0]

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """See HasFrames.frames."""
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
        """All that the cameras of a room take, with the classes of the pixels."""
        return _room(self.seed, self._number(split, scene), self.views, self.points)[1]

    def _number(self, split: str, scene: str) -> int:
        require_scene(self.name, split, scene, self.scenes(split))
        return int(scene.removeprefix("room"))
