"""The classes of a dataset: names, colours, and groups that are reported together."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.errors import DatasetError


@dataclass(frozen=True)
class ClassList:
    """The classes of a dataset; labels are indices into it."""

    names: tuple[str, ...]
    """K distinct names."""
    colors: NDArray[np.uint8] = field(compare=False)
    """(K, 3) red, green, blue."""
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    """Sets of classes that are reported together as well, such as head, common and tail."""
    codes: tuple[int | None, ...] = field(default=(), compare=False)
    """Number of each class in ``classification`` of LAS files (ASPRS codes); None where it is not known. Empty: the
    classes are not those of LAS files."""

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise DatasetError(
                f"ClassList: 'names' must be distinct, at least one, got {self.names}"
            )
        if self.colors.shape != (len(self.names), 3) or self.colors.dtype != np.uint8:
            raise DatasetError(
                f"ClassList: 'colors' must be ({len(self.names)}, 3) uint8, "
                f"got {self.colors.shape} {self.colors.dtype}"
            )
        wrong_codes = [code for code in self.codes if code is not None and not 0 <= code <= 255]
        if wrong_codes or len(self.codes) not in (0, len(self.names)):
            raise DatasetError(
                f"ClassList: 'codes' must be a number of 0 to 255 for each of the {len(self.names)} classes, or "
                f"empty, got {self.codes}"
            )
        for name, members in self.groups.items():
            wrong = [index for index in members if not 0 <= index < len(self.names)]
            if wrong:
                raise DatasetError(
                    f"ClassList: group '{name}' must hold indices of the {len(self.names)} classes, got {wrong}"
                )

    def __len__(self) -> int:
        return len(self.names)


UNLABELLED = ClassList(("unlabelled",), np.zeros((1, 3), np.uint8))
"""Classes of clouds without labels and without a list of classes."""


def distinct_colors(count: int) -> NDArray[np.uint8]:
    """(count, 3) default colours of classes, always the same ones: ``distinct_color`` of each index."""
    colors = [distinct_color(index) for index in range(count)]
    return np.array(colors, np.uint8).reshape(-1, 3)


def distinct_color(index: int) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a class by its index.

    Hues advance by the golden ratio, so that neighbours in the list differ most; brightness and saturation
    alternate.
    """
    hue = (0.58 + index * 0.618034) % 1
    saturation, value = ((0.65, 0.9), (0.85, 0.65), (0.4, 0.95))[index % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue
