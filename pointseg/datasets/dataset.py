"""The interface of all datasets: classes, splits, and scenes by name."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.errors import DatasetError
from pointseg.scene import Scene


@dataclass(frozen=True)
class ClassList:
    """The classes of a dataset; labels are indices into it."""

    names: tuple[str, ...]
    """K distinct names."""
    colors: NDArray[np.uint8] = field(compare=False)
    """(K, 3) red, green, blue."""
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    """Sets of classes that are reported together as well, such as head, common and tail."""

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
"""Classes of clouds without labels and without a list of classes."""


class Dataset(Protocol):
    """Labelled clouds by split and name, which are read on demand."""

    @property
    def name(self) -> str:
        """Its name in recipes and reports."""

    @property
    def classes(self) -> ClassList:
        """Meaning of its labels."""

    @property
    def fields(self) -> frozenset[str]:
        """Fields that every scene has, of color, normal and strength."""

    def splits(self) -> tuple[str, ...]:
        """Names of its splits."""

    def scenes(self, split: str) -> tuple[str, ...]:
        """Names of the scenes of a split in a fixed order.

        Raises:
            DatasetError: there is no such split.
        """

    def load(self, split: str, scene: str) -> Scene:
        """Load one cloud, with ``segment`` unless it has no labels.

        Raises:
            DatasetError: there is no such scene, or it does not fit the dataset.
        """


@runtime_checkable
class KnowsShares(Protocol):
    """A dataset with published shares of the classes, which need not be counted."""

    @property
    def class_shares(self) -> tuple[float, ...]:
        """Share of each class among all points of ``shares_of``, labelled or not."""

    @property
    def shares_of(self) -> tuple[str, ...]:
        """Splits that the shares refer to."""


class NamedScenes:
    """The splits and scenes of a dataset by name."""

    def __init__(self, name: str, scenes: Mapping[str, Iterable[str]]) -> None:
        """List the scenes.

        Args:
            name: name of the dataset.
            scenes: names of the scenes of each split, in order.
        """
        self.name = name
        self._names = {split: tuple(names) for split, names in scenes.items()}
        self._members = {split: frozenset(names) for split, names in self._names.items()}

    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self._names)

    def scenes(self, split: str) -> tuple[str, ...]:
        """Names of the scenes of a split.

        Raises:
            DatasetError: there is no such split.
        """
        require_split(self.name, split, self.splits())
        return self._names[split]

    def require(self, split: str, scene: str) -> None:
        """Refuse an unknown split or scene.

        Raises:
            DatasetError: there is no such split or scene.
        """
        names = self.scenes(split)
        if scene not in self._members[split]:
            require_scene(self.name, split, scene, names)


def distinct_colors(count: int) -> NDArray[np.uint8]:
    """(count, 3) default colours of classes, always the same ones.

    Hues advance by the golden ratio, so that neighbours in the list differ most; brightness and saturation
    alternate.
    """
    colors = np.empty((count, 3), np.uint8)
    for index in range(count):
        hue = (0.58 + index * 0.618034) % 1
        saturation, value = ((0.65, 0.9), (0.85, 0.65), (0.4, 0.95))[index % 3]
        colors[index] = np.round(255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value)))
    return colors


def require_split(dataset: str, split: str, known: Sequence[str]) -> None:
    """Refuse an unknown split.

    Raises:
        DatasetError: ``split`` is not among ``known``.
    """
    if split not in known:
        raise DatasetError(f"{dataset}: has no split '{split}', only {', '.join(known)}")


def require_scene(dataset: str, split: str, scene: str, known: Sequence[str]) -> None:
    """Refuse an unknown scene.

    Raises:
        DatasetError: ``scene`` is not among ``known``.
    """
    if scene not in known:
        raise DatasetError(
            f"{dataset}: split '{split}' has no scene '{scene}' among its {len(known)}"
        )
