"""The classes of all clouds that are shown, each with one name and one colour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.classes import distinct_color
from pointseg.scene import IGNORE

Color = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""
ASPRS = MappingProxyType(
    {
        0: "never classified",
        1: "unclassified",
        2: "ground",
        3: "low vegetation",
        4: "medium vegetation",
        5: "high vegetation",
        6: "building",
        7: "low noise",
        8: "model key point",
        9: "water",
        10: "rail",
        11: "road surface",
        12: "overlap",
        13: "wire, guard",
        14: "wire, conductor",
        15: "transmission tower",
        16: "wire connector",
        17: "bridge deck",
        18: "high noise",
        19: "overhead structure",
        20: "ignored ground",
        21: "snow",
        22: "temporal exclusion",
    }
)
"""Standard classes of LAS files. Source: LAS 1.4, revision 15 of the specification."""
ASPRS_COLORS: Mapping[int, Color] = MappingProxyType(
    {
        0: (120, 120, 126),
        1: (160, 160, 166),
        2: (158, 108, 62),
        3: (176, 218, 112),
        4: (92, 176, 72),
        5: (24, 112, 48),
        6: (228, 84, 40),
        7: (255, 0, 255),
        8: (240, 222, 96),
        9: (40, 118, 220),
        10: (112, 72, 142),
        11: (84, 84, 94),
        12: (202, 200, 142),
        13: (252, 202, 58),
        14: (255, 168, 0),
        15: (128, 30, 34),
        16: (204, 150, 92),
        17: (64, 196, 196),
        18: (188, 0, 188),
        19: (118, 140, 202),
        20: (202, 164, 124),
        21: (226, 240, 255),
        22: (102, 92, 62),
    }
)
"""Their colours, as maps have them: ground brown, vegetation green, buildings orange-red, water blue, noise magenta."""


@dataclass
class Palette:
    """Names and colours in the order in which clouds bring them; a class of two clouds has the colour of the first."""

    names: list[str] = field(default_factory=list)
    """K names."""
    colors: list[Color] = field(default_factory=list)
    """K colours."""
    _index: dict[str, int] = field(init=False, repr=False, compare=False)
    """Where each name stands."""

    def __post_init__(self) -> None:
        self._index = {name: index for index, name in enumerate(self.names)}

    def indices(
        self, labels: NDArray[np.int32], names: Mapping[int, str], colors: Mapping[int, Color]
    ) -> NDArray[np.int32]:
        """(N,) labels of a cloud as indices into this list, which grows by classes that it lacks.

        Args:
            labels: (N,) numbers; those that have no name become -1.
            names: name of each number.
            colors: colour of each number; others get one of their own.
        """
        for number, name in names.items():
            if name not in self._index:
                self._index[name] = len(self.names)
                self.names.append(name)
                self.colors.append(colors.get(number) or color_of_number(number))
        found, inverse = np.unique(labels, return_inverse=True)
        table = [
            self._index[names[number]] if number in names else IGNORE for number in found.tolist()
        ]
        return np.array(table, np.int32)[inverse.reshape(-1)]

    def paint(self, indices: NDArray[np.int32]) -> NDArray[np.uint8]:
        """(N, 3) colours of classes, grey where there is none."""
        from pointseg.pictures.sheets import class_colors

        return class_colors(indices, np.array(self.colors, np.uint8).reshape(-1, 3))


def color_of_number(number: int) -> Color:
    """The colour that classes get by their number, in pictures as well."""
    return distinct_color(number)


def numbered_names(labels: NDArray[np.int32], *, are_codes: bool) -> dict[int, str]:
    """Names of labels that no record explains: the numbers that occur, and of ASPRS codes what they mean."""
    numbers = [n for n in np.unique(labels).tolist() if n >= 0]
    if not are_codes:
        return {n: str(n) for n in numbers}
    return {n: f"{n} {ASPRS[n]}" if n in ASPRS else str(n) for n in numbers}
