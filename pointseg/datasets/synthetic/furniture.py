"""Generates furniture of random size and colour from boxes and cylinders.

A piece stands on z = 0 at the origin, with its back towards +y, so that it can be placed at a wall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pointseg.datasets.synthetic.primitives import Box, Cylinder, Pattern, Primitive, Triple

NAMES = (
    "floor", "ceiling", "wall", "window", "door", "picture",
    "table", "chair", "sofa", "bed", "shelf", "lamp",
)  # fmt: skip
(FLOOR, CEILING, WALL, WINDOW, DOOR, PICTURE, TABLE, CHAIR, SOFA, BED, SHELF, LAMP) = range(12)
COLORS = (
    (152, 120, 90), (225, 225, 215), (174, 199, 232), (197, 176, 213), (214, 39, 40), (196, 156, 148),
    (255, 152, 150), (188, 189, 34), (140, 86, 75), (255, 187, 120), (148, 103, 189), (255, 215, 0),
)  # fmt: skip

# Classes share colours (wood: tables, chairs, shelves, doors, floors; fabric: sofas, beds, chairs,
# pictures), so that colour helps but does not decide.
WOODS = ((150, 105, 65), (190, 150, 105), (95, 65, 45), (215, 195, 165), (230, 228, 222), (60, 55, 52))  # fmt: skip
FABRICS = ((120, 125, 135), (70, 90, 130), (150, 70, 60), (95, 120, 85), (205, 195, 175), (225, 220, 215),
           (180, 150, 90), (60, 60, 70))  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A piece of furniture."""

    width: float
    """Size along x, along the wall, in metres."""
    depth: float
    """Size along y in metres."""
    primitives: tuple[Primitive, ...]
    """Its shapes."""


def tint(colors: Sequence[Triple], rng: np.random.Generator) -> Triple:
    """One of some colours with a little noise."""
    chosen = np.array(colors[int(rng.integers(len(colors)))]) + rng.normal(0, 12, 3)
    red, green, blue = np.clip(chosen, 10, 245).tolist()
    return red, green, blue


def table(rng: np.random.Generator, *, low: bool = False) -> Piece:
    """A table with four legs or one and a round or rectangular top; low: a coffee table."""
    height = rng.uniform(0.36, 0.48) if low else rng.uniform(0.68, 0.78)
    width = rng.uniform(0.7, 1.1) if low else rng.uniform(0.8, 1.8)
    depth = rng.uniform(0.45, 0.65) if low else rng.uniform(0.6, 0.95)
    color, thick = tint(WOODS, rng), rng.uniform(0.02, 0.05)
    if rng.random() < 0.3:
        radius = depth * 0.6
        shapes: list[Box | Cylinder] = [
            Cylinder((0, 0, height - thick), radius, thick),
            Cylinder((0, 0, 0.02), 0.05, height - thick - 0.02),
            Cylinder((0, 0, 0), radius * 0.55, 0.03),
        ]
        return Piece(2 * radius, 2 * radius, _primitives(shapes, TABLE, color))
    shapes = [Box((0, 0, height - thick / 2), (width, depth, thick))]
    shapes += _legs(width - 0.08, depth - 0.08, height - thick, rng.uniform(0.04, 0.07))
    return Piece(width, depth, _primitives(shapes, TABLE, color))


def chair(rng: np.random.Generator) -> Piece:
    """A chair with four legs, or one on a foot, a seat and a back."""
    seat, width, depth = rng.uniform(0.42, 0.5), rng.uniform(0.4, 0.5), rng.uniform(0.4, 0.5)
    back, thick = rng.uniform(0.38, 0.55), rng.uniform(0.03, 0.07)
    color = tint(WOODS + FABRICS, rng)
    shapes: list[Box | Cylinder] = [
        Box((0, 0, seat - thick / 2), (width, depth, thick)),
        Box((0, depth / 2 - 0.02, seat + back / 2 + 0.04), (width * 0.95, 0.04, back)),
    ]
    if rng.random() < 0.3:
        shapes += [
            Cylinder((0, 0, 0.04), 0.03, seat - thick - 0.04),
            Cylinder((0, 0, 0), 0.25, 0.05),
        ]
    else:
        shapes += _legs(width - 0.04, depth - 0.04, seat - thick, 0.035)
        for side in (-1, 1):  # supports of the back
            shapes.append(
                Box((side * (width / 2 - 0.03), depth / 2 - 0.02, seat + 0.03), (0.03, 0.03, 0.1))
            )
    return Piece(width, depth, _primitives(shapes, CHAIR, color))


def sofa(rng: np.random.Generator) -> Piece:
    """A sofa with one to three cushions between arms and a back."""
    seats = int(rng.integers(1, 4))
    arm, seat = rng.uniform(0.12, 0.22), rng.uniform(0.38, 0.46)
    width, depth = seats * rng.uniform(0.55, 0.7) + 2 * arm, rng.uniform(0.8, 0.95)
    back, color = rng.uniform(0.7, 0.95), tint(FABRICS, rng)
    inner = width - 2 * arm
    shapes: list[Box | Cylinder] = [
        Box((0, 0, 0.04 + (seat - 0.14) / 2), (inner, depth, seat - 0.14)),
        Box((0, depth / 2 - 0.11, back / 2 + 0.04), (inner, 0.22, back - 0.08)),
    ]
    for side in (-1, 1):
        top = seat + rng.uniform(0.12, 0.22)
        shapes.append(Box((side * (width - arm) / 2, 0, top / 2 + 0.02), (arm, depth, top - 0.04)))
    for number in range(seats):
        x = (number + 0.5) * inner / seats - inner / 2
        shapes.append(Box((x, -0.1, seat - 0.05), (inner / seats - 0.02, depth - 0.22, 0.12)))
    return Piece(width, depth, _primitives(shapes, SOFA, color, _weave(rng)))


def bed(rng: np.random.Generator) -> Piece:
    """A bed: frame, mattress with a blanket, pillows and a headboard."""
    width, depth = float(rng.choice([0.95, 1.4, 1.8])), rng.uniform(2.0, 2.15)
    top, wood, cloth = rng.uniform(0.42, 0.6), tint(WOODS, rng), tint(FABRICS, rng)
    white = tint([(228, 226, 222)], rng)
    head = rng.uniform(0.75, 1.15)
    frame = [
        Box((0, 0, top / 2 - 0.06), (width, depth, top - 0.2)),
        Box((0, depth / 2 - 0.03, head / 2), (width + 0.06, 0.06, head)),
    ]
    mattress = [Box((0, -0.03, top - 0.08), (width - 0.04, depth - 0.1, 0.16))]
    cover = rng.uniform(0.55, 0.75) * depth
    blanket = [Box((0, -(depth - cover) / 2, top - 0.05), (width + 0.04, cover, 0.16))]
    count = 1 if width < 1.2 else 2
    pillows = [
        Box(
            ((n + 0.5) * width / count - width / 2, depth / 2 - 0.33, top + 0.05),
            (0.55, 0.38, 0.12),
        )
        for n in range(count)
    ]
    primitives = (
        *_primitives(frame, BED, wood), *_primitives(mattress + pillows, BED, white),
        *_primitives(blanket, BED, cloth, _weave(rng)),
    )  # fmt: skip
    return Piece(width + 0.06, depth, primitives)


def shelf(rng: np.random.Generator) -> Piece:
    """A shelf with boards and books, or a cupboard with closed fronts."""
    width, depth = rng.uniform(0.6, 1.4), rng.uniform(0.26, 0.4)
    height, color = rng.uniform(0.8, 2.1), tint(WOODS, rng)
    if rng.random() < 0.3:
        body: list[Box | Cylinder] = [
            Box((0, 0.01, height / 2), (width, depth - 0.02, height)),
            Box(
                (-width / 4, -depth / 2 + 0.01, height / 2), (width / 2 - 0.02, 0.02, height - 0.06)
            ),
            Box(
                (width / 4, -depth / 2 + 0.01, height / 2), (width / 2 - 0.02, 0.02, height - 0.06)
            ),
        ]
        return Piece(width, depth, _primitives(body, SHELF, color))
    shapes: list[Box | Cylinder] = [Box((0, depth / 2 - 0.01, height / 2), (width, 0.02, height))]
    for side in (-1, 1):
        shapes.append(Box((side * (width / 2 - 0.015), 0, height / 2), (0.03, depth, height)))
    levels = max(2, round(height / rng.uniform(0.3, 0.4)))
    primitives: list[Primitive] = []
    for number in range(levels + 1):
        z = 0.04 + number * (height - 0.06) / levels
        shapes.append(Box((0, 0, z), (width - 0.06, depth, 0.025)))
        at = -width / 2 + 0.05
        while number < levels and rng.random() < 0.75 and at < width / 2 - 0.3:
            row, tall = rng.uniform(0.1, 0.3), rng.uniform(0.16, 0.26)
            books = Box((at + row / 2, 0.03, z + 0.013 + tall / 2), (row, depth * 0.65, tall))
            spines = Pattern(((1.0, 0.3, 0.0),), rng.uniform(0.02, 0.05), rng.uniform(0.2, 0.5))
            primitives += _primitives([books], SHELF, tint(FABRICS, rng), spines)
            at += row + rng.uniform(0, 0.15)
    return Piece(width, depth, (*_primitives(shapes, SHELF, color), *primitives))


def lamp(rng: np.random.Generator, *, room_height: float | None = None) -> Piece:
    """A floor lamp; with ``room_height`` a lamp that hangs from the ceiling."""
    metal, light = (
        tint([(70, 70, 75), (190, 190, 190), (170, 140, 80)], rng),
        tint([(240, 230, 200)], rng),
    )
    radius, shade = rng.uniform(0.14, 0.24), rng.uniform(0.18, 0.32)
    if room_height is not None:
        drop = rng.uniform(0.3, 0.6)
        bottom = room_height - drop - shade
        primitives = _primitives([Cylinder((0, 0, room_height - drop), 0.012, drop)], LAMP, metal)
    else:
        bottom = rng.uniform(1.2, 1.55)
        primitives = _primitives(
            [Cylinder((0, 0, 0), rng.uniform(0.12, 0.18), 0.025), Cylinder((0, 0, 0.025), 0.018, bottom)],
            LAMP, metal,
        )  # fmt: skip
    bright = Primitive(Cylinder((0, 0, bottom), radius, shade), LAMP, light, glow=0.7)
    return Piece(2 * radius, 2 * radius, (*primitives, bright))


def _primitives(
    shapes: Sequence[Box | Cylinder], label: int, color: Triple, pattern: Pattern | None = None
) -> tuple[Primitive, ...]:
    return tuple(Primitive(shape, label, color, pattern) for shape in shapes)


def _legs(width: float, depth: float, height: float, thick: float) -> list[Box | Cylinder]:
    return [
        Box((x * (width - thick) / 2, y * (depth - thick) / 2, height / 2), (thick, thick, height))
        for x in (-1, 1)
        for y in (-1, 1)
    ]


def _weave(rng: np.random.Generator) -> Pattern | None:
    if rng.random() < 0.5:
        return None
    directions: tuple[Triple, ...] = ((1.0, 0.2, 0.0), (0.0, 1.0, 0.3))
    return Pattern(directions[: rng.integers(1, 3)], rng.uniform(0.08, 0.2), rng.uniform(0.1, 0.3))
