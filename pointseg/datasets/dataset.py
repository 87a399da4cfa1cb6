"""The interface of all datasets."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from pointseg.datasets.classes import ClassList
from pointseg.scene import Scene


class Dataset(Protocol):
    """Labelled clouds by split and name, which are read on demand.

    It may also have ``frames`` (``ProvidesFrames`` of ``pointseg.images.readers.frame``), and a dataset of the
    user's own ``voxel_m``, the usual side of a voxel in metres. Its scenes are in metres with z up.
    """

    @property
    def name(self) -> str:
        """Its name in recipes and reports."""

    @property
    def classes(self) -> ClassList:
        """Meaning of its labels."""

    @property
    def fields(self) -> frozenset[str]:
        """Fields that every scene has, of color, normal, strength and returns."""

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
class DescribesLabels(Protocol):
    """A dataset whose user says what the labels of its files mean."""

    @property
    def meaning_of_labels(self) -> str:
        """Text that differs where labels of the same files become other classes."""


@runtime_checkable
class KnowsShares(Protocol):
    """A dataset with published shares of the classes, which need not be counted."""

    @property
    def class_shares(self) -> tuple[float, ...]:
        """Share of each class among all points of ``shares_of``, labelled or not."""

    @property
    def shares_of(self) -> tuple[str, ...]:
        """Splits that the shares refer to."""
