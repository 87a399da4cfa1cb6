"""Generates furnished rooms: walls with doors, windows and pictures, then furniture that does not overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pointseg.datasets.synthetic import furniture
from pointseg.datasets.synthetic.furniture import (
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
from pointseg.datasets.synthetic.primitives import Box, Panel, Pattern, Primitive, Triple
from pointseg.datasets.synthetic.rooms import Room

GAP_M = 0.08  # between pieces
DOOR_CLEARANCE_M = 0.8


def build_room(rng: np.random.Generator) -> Room:
    """Generate a room with a door, windows, pictures and furniture."""
    width, depth = rng.uniform(3.0, 6.0, 2).tolist()
    height = rng.uniform(2.4, 3.0)
    builder = _Builder(rng, width, depth, height)
    builder.shell()
    builder.furnish()
    return Room(width, depth, height, tuple(builder.primitives))


class _Builder:
    """A room under construction: its primitives, and the occupied floor."""

    def __init__(self, rng: np.random.Generator, width: float, depth: float, height: float) -> None:
        self.rng, self.width, self.depth, self.height = rng, width, depth, height
        self.primitives: list[Primitive] = []
        self.taken: list[tuple[float, float, float, float]] = []  # x0, y0, x1, y1
        self.objects = 0

    def shell(self) -> None:
        """Add floor, ceiling, and walls with doors, windows and pictures."""
        rng, w, d, h = self.rng, self.width, self.depth, self.height
        planks = Pattern(((1.0, 0.0, 0.0),), rng.uniform(0.1, 0.25), rng.uniform(0.05, 0.2))
        tiles = Pattern(
            ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), rng.uniform(0.2, 0.5), rng.uniform(0.05, 0.2)
        )
        ground = planks if rng.random() < 0.6 else tiles
        self.primitives.append(
            Primitive(Panel((0, 0, 0), (w, 0, 0), (0, d, 0)), FLOOR, tint(WOODS, rng), ground)
        )
        self.primitives.append(
            Primitive(Panel((0, 0, h), (0, d, 0), (w, 0, 0)), CEILING, tint([(232, 232, 228)], rng))
        )
        paint = tint([(228, 224, 215), (200, 212, 220), (222, 205, 180), (190, 205, 185)], rng)
        door_wall = int(rng.integers(4))
        window_walls = rng.choice(
            np.delete(np.arange(4), door_wall), rng.integers(1, 3), replace=False
        )
        for number in range(4):
            self.wall(number, paint, door=number == door_wall, window=number in window_walls)

    def wall(self, number: int, paint: Triple, *, door: bool, window: bool) -> None:
        """Add a wall; number 0 is at y = 0, the others follow counter-clockwise."""
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
        # Edges along the wall, then up: the visible side faces the room.
        start, end = frame.point(0, 0, 0), frame.point(frame.length, 0, 0)
        along = (start[0] - end[0], start[1] - end[1], 0.0)
        mirrored = tuple((1 - a1, c0, 1 - a0, c1) for a0, c0, a1, c1 in holes)
        self.primitives.append(
            Primitive(Panel(end, along, (0, 0, self.height), mirrored), WALL, paint)
        )

    def door(self, frame: _WallFrame, opening: tuple[float, float, float, float]) -> None:
        a0, _, a1, top = opening
        rng, number = self.rng, self.next_object()
        color = tint(WOODS, rng)
        middle = (a0 + a1) / 2
        leaf = frame.box(middle, top / 2, a1 - a0, top, thick=0.04, inward=-rng.uniform(0.0, 0.08))
        self.primitives.append(Primitive(leaf, DOOR, color, None, number))
        for side in (a0, a1):
            post = frame.box(side, top / 2, 0.07, top, thick=0.1, inward=-0.03)
            self.primitives.append(Primitive(post, DOOR, color, None, number))
        handle = frame.box(a1 - 0.09, 1.03, 0.13, 0.025, thick=0.05, inward=0.04)
        self.primitives.append(Primitive(handle, DOOR, (150, 150, 150), None, number))
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
        self.primitives.append(Primitive(glass, WINDOW, sky, None, number, glow=0.85))
        bars = [(middle, z0, a1 - a0, 0.06), (middle, z1, a1 - a0, 0.06)]
        bars += [(a, level, 0.06, z1 - z0) for a in (a0, a1, middle)]
        for a, z, wide, tall in bars:
            self.primitives.append(Primitive(frame.box(a, z, wide, tall, thick=0.06, inward=-recess / 2), WINDOW,
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
        self.primitives.append(
            Primitive(shape, PICTURE, tint(FABRICS, rng), weave, self.next_object())
        )

    def furnish(self) -> None:
        """Add large pieces at the walls, a table with chairs, then smaller pieces where they fit."""
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
            self.put(hanging, x, y, 0.0)  # it occupies no floor

    def dining(self) -> None:
        """Add a table with chairs at its long sides."""
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
        """Place a piece at a random free position; returns x, y and yaw, or None."""
        reach = np.hypot(piece.width, piece.depth) / 2 + 0.05
        for _ in range(12):
            x = self.rng.uniform(reach, self.width - reach)
            y = self.rng.uniform(reach, self.depth - reach)
            yaw = self.rng.integers(4) * np.pi / 2 + self.rng.normal(0, 0.1)
            if self.put_if_free(piece, x, y, yaw, gap=GAP_M):
                return x, y, yaw
        return None

    def put_if_free(self, piece: Piece, x: float, y: float, yaw: float, *, gap: float) -> bool:
        """Place a piece if it touches neither a wall nor another piece."""
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
        self.primitives += [primitive.placed(x, y, yaw, number) for primitive in piece.primitives]

    def next_object(self) -> int:
        self.objects += 1
        return self.objects - 1


@dataclass(frozen=True)
class _WallFrame:
    """Coordinates of a wall: along it (from right to left, seen from the room), inwards, and up."""

    number: int
    width: float
    depth: float

    @property
    def length(self) -> float:
        return self.width if self.number % 2 == 0 else self.depth

    @property
    def yaw(self) -> float:
        """Yaw of a piece whose back (+y) is at this wall."""
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
        """A box centred at a position on the wall."""
        center = self.point(along, inward, up)
        flat = (wide, thick, tall) if self.number % 2 == 0 else (thick, wide, tall)
        return Box(center, flat)


def _overlap(
    one: tuple[float, float, float, float], two: tuple[float, float, float, float]
) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
