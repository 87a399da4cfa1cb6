"""Furnished rooms generated on the fly: a dataset that needs no data."""

from __future__ import annotations

import numpy as np

from pointseg.datasets.classes import ClassList
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.named_scenes import NamedScenes
from pointseg.datasets.synthetic.furniture import COLORS, NAMES
from pointseg.datasets.synthetic.layout import build_room
from pointseg.datasets.synthetic.rooms import Room, sample_room
from pointseg.scene import Scene

FIRST_ROOM = {"train": 0, "val": 1_000_000, "test": 2_000_000}
"""Number of the first room of each split, so that no room is in two splits."""


class Synthetic(NamedScenes):
    """Rooms of 12 classes with colour and normals; the same seed gives the same rooms on every machine.

    Args:
        seed: seed of the rooms.
        rooms: numbers of rooms in train, val and test.
        points: number of points of a room.

    Raises:
        DatasetError: fewer than one room or point.
    """

    def __init__(
        self, *, seed: int = 0, rooms: tuple[int, int, int] = (200, 20, 20), points: int = 40_000
    ) -> None:
        if min(rooms) < 1 or points < 1 or seed < 0:
            raise DatasetError(
                f"Synthetic: 'rooms' and 'points' must be at least 1, 'seed' at least 0, "
                f"got {rooms}, {points}, {seed}"
            )
        self.classes = ClassList(NAMES, np.array(COLORS, np.uint8))
        self.fields = frozenset({"color", "normal"})
        self.seed, self.points = seed, points
        counts = zip(FIRST_ROOM.items(), rooms, strict=True)
        super().__init__(
            "synthetic",
            {
                split: [f"room{first + number:07d}" for number in range(count)]
                for (split, first), count in counts
            },
        )

    def load(self, split: str, scene: str) -> Scene:
        """Generate a room and simulate its scan.

        Raises:
            DatasetError: there is no such room.
        """
        room, rng = self._room(split, scene)
        return sample_room(room, self.points, rng, name=scene)

    def room(self, split: str, scene: str) -> Room:
        """The room itself, before its scan is simulated.

        Raises:
            DatasetError: there is no such room.
        """
        return self._room(split, scene)[0]

    def _room(self, split: str, scene: str) -> tuple[Room, np.random.Generator]:
        self.require(split, scene)
        rng = np.random.default_rng([self.seed, int(scene.removeprefix("room"))])
        return build_room(rng), rng
