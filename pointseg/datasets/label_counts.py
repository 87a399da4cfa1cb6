"""Number of labelled points of each class, from which class weights are computed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.dataset import Dataset
from pointseg.scene import IGNORE


def label_counts(
    dataset: Dataset, scenes: Iterable[tuple[str, str]]
) -> tuple[NDArray[np.int64], int]:
    """(K,) labelled points of each class over scenes (split, name); and all points, labelled or not."""
    counts, points = np.zeros(len(dataset.classes), np.int64), 0
    for split, name in scenes:
        segment = dataset.load(split, name)["segment"]
        counts += np.bincount(segment[segment != IGNORE], minlength=len(counts))
        points += len(segment)
    return counts, points
