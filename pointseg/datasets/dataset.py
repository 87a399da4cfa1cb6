"""What every dataset promises: its classes, its splits, and scenes by name."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.errors import DatasetError
from pointseg.scene import Scene


@dataclass(frozen=True)
class ClassList:
    """The classes of a dataset; a label is an index into it."""

    names: tuple[str, ...]
    """K names, no two alike."""
    colors: NDArray[np.uint8] = field(compare=False)
    """(K, 3) red, green, blue."""
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    """Named sets of classes that are also reported together, such as head, common and tail."""

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
        for name, members in self.groups.items():
            wrong = [index for index in members if not 0 <= index < len(self.names)]
            if wrong:
                raise DatasetError(
                    f"ClassList: group '{name}' must hold indices of the {len(self.names)} classes, got {wrong}"
                )

    def __len__(self) -> int:
        return len(self.names)


UNLABELLED = ClassList(("unlabelled",), np.zeros((1, 3), np.uint8))
"""Of clouds that are learned from without labels, where nothing says which classes these would have."""


class Dataset(Protocol):
    """Labelled clouds by split and name; read when they are asked for."""

    @property
    def name(self) -> str:
        """What it is called in recipes and reports."""

    @property
    def classes(self) -> ClassList:
        """What its labels mean."""

    @property
    def fields(self) -> frozenset[str]:
        """Those of color, normal and strength that every scene has."""

    def splits(self) -> tuple[str, ...]:
        """Names of its splits."""

    def scenes(self, split: str) -> tuple[str, ...]:
        """Names of the scenes of a split, always in the same order.

        Raises:
            DatasetError: there is no such split.
        """

    def load(self, split: str, scene: str) -> Scene:
        """One cloud, with ``segment`` unless it has no labels.

        Raises:
            DatasetError: there is no such scene, or it does not fit the dataset.
        """


@runtime_checkable
class KnowsShares(Protocol):
    """A dataset whose shares of the classes are published, and need not be counted."""

    @property
    def class_shares(self) -> tuple[float, ...]:
        """Of each class among all points of these splits, labelled or not."""

    @property
    def shares_of(self) -> tuple[str, ...]:
        """The splits."""


def distinct_colors(count: int) -> NDArray[np.uint8]:
    """(count, 3) colours for classes that have none of their own, always the same ones.

    Hues go round by the golden ratio, so that neighbours in the list differ most; brightness and
    saturation alternate, so that many classes stay apart.
    """
    colors = np.empty((count, 3), np.uint8)
    for index in range(count):
        hue = (0.58 + index * 0.618034) % 1
        saturation, value = ((0.65, 0.9), (0.85, 0.65), (0.4, 0.95))[index % 3]
        colors[index] = np.round(255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value)))
    return colors


def require_split(dataset: str, split: str, known: Sequence[str]) -> None:
    """Refuse a split that is not there, naming those that are.

    Raises:
        DatasetError: ``split`` is not among ``known``.
    """
    if split not in known:
        raise DatasetError(f"{dataset}: there is no split '{split}'; there are: {', '.join(known)}")


def require_scene(dataset: str, split: str, scene: str, known: Sequence[str]) -> None:
    """Refuse a scene that is not in a split.

    Raises:
        DatasetError: ``scene`` is not among ``known``.
    """
    if scene not in known:
        raise DatasetError(
            f"{dataset}: split '{split}' has no scene '{scene}' among its {len(known)}"
        )
