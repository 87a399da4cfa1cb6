"""The classes of all clouds that are shown, each with one name and one colour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.classes import distinct_colors
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


@dataclass
class Palette:
    """Names and colours in the order in which clouds bring them; a class of two clouds has the colour of the first."""

    names: list[str] = field(default_factory=list)
    """K names."""
    colors: list[Color] = field(default_factory=list)
    """K colours."""

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
            if name not in self.names:
                self.names.append(name)
                self.colors.append(colors.get(number) or color_of_number(number))
        found, inverse = np.unique(labels, return_inverse=True)
        table = [
            self.names.index(names[number]) if number in names else IGNORE
            for number in found.tolist()
        ]
        return np.array(table, np.int32)[inverse.reshape(-1)]

    def paint(self, indices: NDArray[np.int32]) -> NDArray[np.uint8]:
        """(N, 3) colours of classes, grey where there is none."""
        from pointseg.pictures.sheets import class_colors

        return class_colors(indices, np.array(self.colors, np.uint8).reshape(-1, 3))


def color_of_number(number: int) -> Color:
    """The colour that classes get by their number, in pictures as well."""
    red, green, blue = distinct_colors(number + 1)[number].tolist()
    return red, green, blue


def numbered_names(labels: NDArray[np.int32], *, are_codes: bool) -> dict[int, str]:
    """Names of labels that no record explains: the numbers that occur, and of ASPRS codes what they mean."""
    numbers = [n for n in np.unique(labels).tolist() if n >= 0]
    if not are_codes:
        return {n: str(n) for n in numbers}
    return {n: f"{n} {ASPRS[n]}" if n in ASPRS else str(n) for n in numbers}
