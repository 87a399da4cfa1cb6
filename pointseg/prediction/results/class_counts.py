"""How many points of a cloud have which class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointseg.scene import IGNORE


@dataclass(frozen=True)
class ClassCounts:
    """What classes a cloud has."""

    points: int
    """How many there are."""
    unlabelled: int
    """How many of them have no class."""
    classes: dict[str, int]
    """Points of each class that occurs."""

    @classmethod
    def of(cls, parts: Iterable[NDArray[np.int32]], names: Sequence[str]) -> ClassCounts:
        """Count the labels of all pieces of a cloud."""
        points = unlabelled = 0
        counts = np.zeros(len(names), np.int64)
        for labels in parts:
            known = labels[labels != IGNORE]
            points += len(labels)
            unlabelled += len(labels) - len(known)
            counts += np.bincount(known, minlength=len(names))
        found = {name: int(count) for name, count in zip(names, counts, strict=True) if count}
        return cls(points, unlabelled, found)
