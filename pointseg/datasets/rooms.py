"""Furnished rooms: built at random from labelled parts, then seen as a cloud of points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets import furniture
from pointseg.datasets.furniture import (
    CEILING,
    DOOR,
    FABRICS,
    FLOOR,
    PICTURE,
    WALL,
    WINDOW,
    WOODS,
    Piece,
    tint,
)
from pointseg.datasets.parts import Box, Panel, Part, Pattern, Triple
from pointseg.scene import Scene

SENSOR_NOISE_M = 0.003
NORMAL_NOISE = 0.06
COLOR_NOISE = 9.0
GAP_M = 0.08  # between pieces
DOOR_CLEARANCE_M = 0.8
UNSEEN_M = 0.06  # what faces a wall as close as this is not seen
SPARE = 1.35  # points drawn per point kept: some are hidden, some fall into holes


@dataclass(frozen=True)
class Room:
    """The inside of a room: floor at z = 0, corners at (0, 0) and (width, depth)."""

    width: float
    depth: float
    height: float
    parts: tuple[Part, ...]


def build_room(rng: np.random.Generator) -> Room:
    """A room with a door, windows, pictures, and furniture that does not overlap."""
    width, depth = rng.uniform(3.0, 6.0, 2).tolist()
    height = rng.uniform(2.4, 3.0)
    builder = _Builder(rng, width, depth, height)
    builder.shell()
    builder.furnish()
    return Room(width, depth, height, tuple(builder.parts))


def sample_room(room: Room, points: int, rng: np.random.Generator, *, name: str) -> Scene:
    """A scanner's view of a room: evenly spread points, noise, light, and holes where it saw nothing.

    Args:
        room: what is scanned.
        points: how many points.
        rng: draws all that is random.
        name: of the scene.

    Returns:
        (points,) with color, normal, segment and instance.
    """
    areas = np.array([part.shape.area for part in room.parts])
    counts = rng.multinomial(round(points * SPARE), areas / areas.sum())
    drawn = [part.shape.sample(n, rng) for part, n in zip(room.parts, counts, strict=True)]
    coord = np.concatenate([found for found, _ in drawn])
    normal = np.concatenate([found for _, found in drawn])
    owner = np.repeat(np.arange(len(room.parts)), counts)
    seen = ~_hidden(room, coord, normal, owner) & ~_in_holes(coord, rng)
    index = rng.permutation(np.flatnonzero(seen))[:points]
    coord, normal, owner = coord[index], normal[index], owner[index]
    color = _lit(room, coord, normal, owner) + rng.normal(0, COLOR_NOISE, coord.shape)
    coord = coord + rng.normal(0, SENSOR_NOISE_M, coord.shape)
    normal = normal + rng.normal(0, NORMAL_NOISE, normal.shape)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    labels = np.array([(part.label, part.instance) for part in room.parts], np.int32)
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
    """(N,) points inside another part, undersides on the floor, backs at a wall or in it."""
    hidden = (coord[:, 2] < 0.01) & (normal[:, 2] < -0.5)
    for axis, far in ((0, room.width), (1, room.depth)):
        hidden |= (coord[:, axis] < UNSEEN_M) & (normal[:, axis] < -0.5)
        hidden |= (coord[:, axis] > far - UNSEEN_M) & (normal[:, axis] > 0.5)
    for number, part in enumerate(room.parts):
        if isinstance(part.shape, Panel):
            continue
        low, high = _bounds(part.shape)
        near = np.flatnonzero(((coord >= low) & (coord <= high)).all(1) & (owner != number))
        hidden[near] |= part.shape.contains(coord[near], 0.001)
    return hidden


def _bounds(shape: Box | furniture.Cylinder) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of an upright box around a shape, whichever way it is turned."""
    if isinstance(shape, Box):
        reach = np.hypot(*shape.size[:2]) / 2
        half = np.array([reach, reach, shape.size[2] / 2])
        return np.array(shape.center) - half, np.array(shape.center) + half
    around = np.array([shape.radius, shape.radius, 0])
    return shape.base - around, shape.base + around + (0, 0, shape.height)


def _in_holes(coord: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """(N,) points within a few random balls around points of the surface."""
    inside = np.zeros(len(coord), bool)
    for _ in range(rng.integers(2, 7)):
        away = coord - coord[rng.integers(len(coord))]
        inside |= np.square(away).sum(1) < rng.uniform(0.08, 0.35) ** 2
    return inside


def _lit(
    room: Room, coord: NDArray[np.float64], normal: NDArray[np.float64], owner: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(N, 3) colours in the light of a lamp below the middle of the ceiling."""
    base = np.array([part.color for part in room.parts], np.float64)[owner]
    glow = np.array([part.glow for part in room.parts])[owner]
    for number, part in enumerate(room.parts):
        if part.pattern is not None:
            rows = np.flatnonzero(owner == number)
            base[rows] *= part.pattern.factor(coord[rows])[:, None]
    toward = np.array([room.width / 2, room.depth / 2, room.height - 0.3]) - coord
    distance = np.linalg.norm(toward, axis=1) + 1e-9
    facing = np.clip((toward * normal).sum(1) / distance, 0, 1)
    light = 0.5 + 0.5 * facing / (1 + 0.04 * distance**2)
    return base * np.maximum(light, glow)[:, None]


class _Builder:
    """A room being built: parts so far, and which floor is taken."""

    def __init__(self, rng: np.random.Generator, width: float, depth: float, height: float) -> None:
        self.rng, self.width, self.depth, self.height = rng, width, depth, height
        self.parts: list[Part] = []
        self.taken: list[tuple[float, float, float, float]] = []  # x0, y0, x1, y1
        self.objects = 0

    def shell(self) -> None:
        """Floor, ceiling, and walls with what is in and on them."""
        rng, w, d, h = self.rng, self.width, self.depth, self.height
        planks = Pattern(((1.0, 0.0, 0.0),), rng.uniform(0.1, 0.25), rng.uniform(0.05, 0.2))
        tiles = Pattern(
            ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), rng.uniform(0.2, 0.5), rng.uniform(0.05, 0.2)
        )
        ground = planks if rng.random() < 0.6 else tiles
        self.parts.append(
            Part(Panel((0, 0, 0), (w, 0, 0), (0, d, 0)), FLOOR, tint(WOODS, rng), ground)
        )
        self.parts.append(
            Part(Panel((0, 0, h), (0, d, 0), (w, 0, 0)), CEILING, tint([(232, 232, 228)], rng))
        )
        paint = tint([(228, 224, 215), (200, 212, 220), (222, 205, 180), (190, 205, 185)], rng)
        door_wall = int(rng.integers(4))
        window_walls = rng.choice(
            np.delete(np.arange(4), door_wall), rng.integers(1, 3), replace=False
        )
        for number in range(4):
            self.wall(number, paint, door=number == door_wall, window=number in window_walls)

    def wall(self, number: int, paint: Triple, *, door: bool, window: bool) -> None:
        """Wall 0 lies at y = 0; the others follow counter-clockwise."""
        rng = self.rng
        frame = _WallFrame(number, self.width, self.depth)
        openings: list[tuple[float, float, float, float]] = []  # along from, up from, to, to
        if door:
            wide = rng.uniform(0.8, 1.0)
            at = rng.uniform(0.2, frame.length - wide - 0.2)
            openings.append((at, 0.0, at + wide, rng.uniform(1.98, 2.12)))
            self.door(frame, openings[-1])
        if window:
            wide = rng.uniform(0.8, min(2.0, frame.length - 1.0))
            at, sill = rng.uniform(0.3, frame.length - wide - 0.3), rng.uniform(0.7, 1.0)
            openings.append(
                (at, sill, at + wide, min(sill + rng.uniform(1.0, 1.4), self.height - 0.2))
            )
            self.window(frame, openings[-1])
        for _ in range(rng.integers(0, 4)):
            self.picture(frame, openings)
        holes = tuple(
            (a0 / frame.length, z0 / self.height, a1 / frame.length, z1 / self.height)
            for a0, z0, a1, z1 in openings[: int(door) + int(window)]
        )
        # Along the wall, then up: the side that is seen is the room's.
        start, end = frame.point(0, 0, 0), frame.point(frame.length, 0, 0)
        along = (start[0] - end[0], start[1] - end[1], 0.0)
        mirrored = tuple((1 - a1, c0, 1 - a0, c1) for a0, c0, a1, c1 in holes)
        self.parts.append(Part(Panel(end, along, (0, 0, self.height), mirrored), WALL, paint))

    def door(self, frame: _WallFrame, opening: tuple[float, float, float, float]) -> None:
        a0, _, a1, top = opening
        rng, number = self.rng, self.next_object()
        color = tint(WOODS, rng)
        middle = (a0 + a1) / 2
        leaf = frame.box(middle, top / 2, a1 - a0, top, thick=0.04, inward=-rng.uniform(0.0, 0.08))
        self.parts.append(Part(leaf, DOOR, color, None, number))
        for side in (a0, a1):
            post = frame.box(side, top / 2, 0.07, top, thick=0.1, inward=-0.03)
            self.parts.append(Part(post, DOOR, color, None, number))
        handle = frame.box(a1 - 0.09, 1.03, 0.13, 0.025, thick=0.05, inward=0.04)
        self.parts.append(Part(handle, DOOR, (150, 150, 150), None, number))
        x0, y0 = frame.point(a0, DOOR_CLEARANCE_M, 0)[:2]
        x1, y1 = frame.point(a1, 0, 0)[:2]
        self.taken.append((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))

    def window(self, frame: _WallFrame, opening: tuple[float, float, float, float]) -> None:
        a0, z0, a1, z1 = opening
        rng, number = self.rng, self.next_object()
        sky, color = (
            tint([(190, 215, 240), (225, 232, 238), (150, 180, 215)], rng),
            tint(WOODS, rng),
        )
        middle, level = (a0 + a1) / 2, (z0 + z1) / 2
        recess = rng.uniform(0.03, 0.12)
        glass = frame.box(middle, level, a1 - a0, z1 - z0, thick=0.01, inward=-recess)
        self.parts.append(Part(glass, WINDOW, sky, None, number, glow=0.85))
        bars = [(middle, z0, a1 - a0, 0.06), (middle, z1, a1 - a0, 0.06)]
        bars += [(a, level, 0.06, z1 - z0) for a in (a0, a1, middle)]
        for a, z, wide, tall in bars:
            self.parts.append(Part(frame.box(a, z, wide, tall, thick=0.06, inward=-recess / 2), WINDOW,
                                   color, None, number))  # fmt: skip

    def picture(self, frame: _WallFrame, openings: list[tuple[float, float, float, float]]) -> None:
        rng = self.rng
        wide, tall = rng.uniform(0.3, 0.9, 2).tolist()
        a0 = rng.uniform(0.1, max(frame.length - wide - 0.1, 0.11))
        z0 = rng.uniform(1.1, max(self.height - tall - 0.2, 1.11))
        new = (a0 - 0.05, z0 - 0.05, a0 + wide + 0.05, z0 + tall + 0.05)
        if a0 + wide > frame.length - 0.05 or any(_overlap(new, other) for other in openings):
            return
        openings.append(new)
        weave = Pattern(
            ((1.0, 1.0, 0.3), (-0.4, 0.4, 1.0)), rng.uniform(0.08, 0.3), rng.uniform(0.1, 0.6)
        )
        shape = frame.box(a0 + wide / 2, z0 + tall / 2, wide, tall, thick=0.03, inward=0.015)
        self.parts.append(Part(shape, PICTURE, tint(FABRICS, rng), weave, self.next_object()))

    def furnish(self) -> None:
        """Large pieces at the walls first, then a table with chairs, then what still fits."""
        rng = self.rng
        pieces = [furniture.bed, furniture.sofa, furniture.shelf]
        if rng.random() < 0.3:  # not every room has one
            pieces.pop(rng.integers(2))
        for make in pieces:
            self.at_wall(make(rng))
        if rng.random() < 0.6:
            self.at_wall(furniture.shelf(rng))
        self.dining()
        if rng.random() < 0.7:
            self.free(furniture.table(rng, low=True))
        for _ in range(rng.integers(1, 3)):
            self.free(furniture.chair(rng))
        if rng.random() < 0.8:
            self.at_wall(furniture.lamp(rng))
        if rng.random() < 0.7:
            hanging = furniture.lamp(rng, room_height=self.height)
            x, y = self.width / 2 + rng.normal(0, 0.3), self.depth / 2 + rng.normal(0, 0.3)
            self.put(hanging, x, y, 0.0)  # above heads: it takes no floor

    def dining(self) -> None:
        """A table in the open with chairs at its long sides."""
        rng = self.rng
        board = furniture.table(rng)
        place = self.free(board)
        if place is None:
            return
        x, y, yaw = place
        for side in (0.0, np.pi):
            if rng.random() < 0.85:
                seat = furniture.chair(rng)
                away = board.depth / 2 + rng.uniform(0.0, 0.25)
                turn = yaw + side
                # A chair's front is at -y: it looks at the table from (0, +away) before turning.
                px, py = x - np.sin(turn) * away, y + np.cos(turn) * away
                self.put_if_free(seat, px, py, turn + rng.normal(0, 0.15), gap=-0.15)

    def at_wall(self, piece: Piece) -> None:
        """Back to a wall, where there is room."""
        for _ in range(12):
            frame = _WallFrame(int(self.rng.integers(4)), self.width, self.depth)
            if frame.length < piece.width + 0.1:
                continue
            along = self.rng.uniform(piece.width / 2 + 0.03, frame.length - piece.width / 2 - 0.03)
            x, y, _ = frame.point(along, piece.depth / 2 + self.rng.uniform(0.01, 0.05), 0)
            if self.put_if_free(piece, x, y, frame.yaw, gap=GAP_M):
                return

    def free(self, piece: Piece) -> tuple[float, float, float] | None:
        """Anywhere, where there is room: x, y and how it is turned."""
        reach = np.hypot(piece.width, piece.depth) / 2 + 0.05
        for _ in range(12):
            x = self.rng.uniform(reach, self.width - reach)
            y = self.rng.uniform(reach, self.depth - reach)
            yaw = self.rng.integers(4) * np.pi / 2 + self.rng.normal(0, 0.1)
            if self.put_if_free(piece, x, y, yaw, gap=GAP_M):
                return x, y, yaw
        return None

    def put_if_free(self, piece: Piece, x: float, y: float, yaw: float, *, gap: float) -> bool:
        """Put it there if it touches neither a wall nor another piece."""
        c, s = abs(np.cos(yaw)), abs(np.sin(yaw))
        half = ((c * piece.width + s * piece.depth) / 2, (s * piece.width + c * piece.depth) / 2)
        place = (x - half[0], y - half[1], x + half[0], y + half[1])
        inside = place[0] > 0 and place[1] > 0 and place[2] < self.width and place[3] < self.depth
        wide = (place[0] - gap, place[1] - gap, place[2] + gap, place[3] + gap)
        if not inside or any(_overlap(wide, other) for other in self.taken):
            return False
        self.taken.append(place)
        self.put(piece, x, y, yaw)
        return True

    def put(self, piece: Piece, x: float, y: float, yaw: float) -> None:
        number = self.next_object()
        self.parts += [part.placed(x, y, yaw, number) for part in piece.parts]

    def next_object(self) -> int:
        self.objects += 1
        return self.objects - 1


@dataclass(frozen=True)
class _WallFrame:
    """Positions on a wall: along it (seen from the room: from right to left), inwards, and up."""

    number: int
    width: float
    depth: float

    @property
    def length(self) -> float:
        return self.width if self.number % 2 == 0 else self.depth

    @property
    def yaw(self) -> float:
        """How a piece is turned whose back, at +y, is to stand at this wall."""
        return (np.pi, -np.pi / 2, 0.0, np.pi / 2)[self.number]

    def point(self, along: float, inward: float, up: float) -> Triple:
        w, d = self.width, self.depth
        x, y = (
            (along, inward),
            (w - inward, along),
            (w - along, d - inward),
            (inward, d - along),
        )[self.number]
        return x, y, up

    def box(
        self, along: float, up: float, wide: float, tall: float, *, thick: float, inward: float
    ) -> Box:
        """A box whose middle lies at a position on the wall."""
        center = self.point(along, inward, up)
        flat = (wide, thick, tall) if self.number % 2 == 0 else (thick, wide, tall)
        return Box(center, flat)


def _overlap(
    one: tuple[float, float, float, float], two: tuple[float, float, float, float]
) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
