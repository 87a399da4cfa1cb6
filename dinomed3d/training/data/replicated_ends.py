"""Preprocessed cases whose end slices are repeated, as the embedding does at the ends of a volume.

nnU-Net's loader fills what lies beyond a volume with zeros. It reads these cases as if they were some
slices longer, so that patches with neighbours of the end slices find the end slice there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Cases(Protocol):
    """What nnU-Net's loader asks of a dataset."""

    identifiers: Sequence[str]

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Voxels, labels, labels of the previous configuration or None, and properties."""


class ReplicatedEnds:
    """An array (..., D, H, W) read as (..., n + D + n, H, W), its first and last slice n times more."""

    def __init__(self, voxels: Any, count: int) -> None:
        """Store the array, of which only what is asked for will be read.

        Args:
            voxels: numpy or blosc2 array, (..., D, H, W).
            count: slices to add at each end, n.
        """
        self.voxels = voxels
        self.count = count
        *channels, depth, height, width = voxels.shape
        self.shape = (*channels, depth + 2 * count, height, width)
        self.dtype = voxels.dtype

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """Voxels of a box.

        Args:
            index: one slice without step per axis.
        """
        *channels, depth, rows, columns = index
        wanted = np.arange(*depth.indices(self.shape[-3])) - self.count
        there = wanted.clip(0, self.voxels.shape[-3] - 1)
        read = slice(int(there[0]), int(there[-1]) + 1)
        box: np.ndarray = np.asarray(self.voxels[(*channels, read, rows, columns)])
        return box.take(there - there[0], axis=-3) if len(there) != box.shape[-3] else box


class CasesWithReplicatedEnds:
    """A dataset of nnU-Net's whose cases have repeated end slices."""

    def __init__(self, cases: Cases, count: int, *, min_depth: int = 1) -> None:
        """Store the dataset.

        Args:
            cases: nnU-Net's.
            count: slices to add at each end.
            min_depth: shallower volumes stay as they are: nnU-Net pads them with zeros, in prediction too, and
                the ends that are read are those of the padding.
        """
        self.min_depth = min_depth
        self.cases = cases
        self.count = count
        self.identifiers = cases.identifiers

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """As nnU-Net's, with the places of foreground moved along."""
        data, labels, previous, properties = self.cases.load_case(identifier)
        if data.shape[-3] < self.min_depth:
            return data, labels, previous, properties
        moved = properties | {"class_locations": self._moved(properties["class_locations"])}
        return (
            ReplicatedEnds(data, self.count),
            ReplicatedEnds(labels, self.count),
            None if previous is None else ReplicatedEnds(previous, self.count),
            moved,
        )

    def _moved(self, locations: Mapping[Any, Any]) -> dict[Any, np.ndarray]:
        """Voxels (channel, z, y, x) of each class, counted from the first repeated slice."""
        offset = np.array([0, self.count, 0, 0])
        return {
            key: np.asarray(places) + offset if len(places) else places
            for key, places in locations.items()
        }
