"""The first points of voxels in buckets on disk, from which tiles are cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pointseg.evaluation.tiling import ArrayPlaces, Corner, Places
from pointseg.prediction.streaming.buckets import Bucket, Buckets, intersecting
from pointseg.prediction.streaming.order_statistics import order_statistics

IN_MEMORY = 5_000_000
"""Places of a rectangle that are taken into memory."""
EVERYWHERE = ((-np.inf, -np.inf), (np.inf, np.inf))


class PlacesOnDisk:
    """More places of a rectangle than are taken into memory; each question reads them once or more."""

    def __init__(self, files: Buckets, held: Sequence[Bucket], low: Corner, high: Corner) -> None:
        self._files, self._low, self._high = files, low, high
        self._held = intersecting(held, low, high)
        self._count = self._weight = 0
        for _, weights in self._pieces():
            self._count += len(weights)
            self._weight += int(weights.sum())

    def __len__(self) -> int:
        return self._count

    def weight(self) -> int:
        """The sum of all weights."""
        return self._weight

    def within(self, low: Corner, high: Corner) -> Places:
        """Those in a smaller rectangle, its borders included."""
        return places_within(self._files, self._held, low, high)

    def bounds(self, low: Corner, high: Corner) -> tuple[Corner, Corner]:
        """Minimum and maximum of those from ``low`` on that lie before ``high``."""
        parts = [(core.min(0), core.max(0)) for core in self._core(low, high) if len(core)]
        (x0, y0) = np.min([first for first, _ in parts], axis=0).tolist()
        (x1, y1) = np.max([last for _, last in parts], axis=0).tolist()
        return (x0, y0), (x1, y1)

    def middle(self, low: Corner, high: Corner, axis: int) -> float:
        """The median of the same points along an axis."""
        count = sum(len(core) for core in self._core(low, high))
        middle = order_statistics(
            lambda: (core[:, axis] for core in self._core(low, high)),
            [(count - 1) // 2, count // 2],
            np.float32,  # as which positions are stored
        )
        return float(np.median(middle))

    def around(self, low: Corner, high: Corner, axis: int, place: float) -> Corner:
        """Of the same points along an axis, the last at most at a place, and the first beyond it."""
        last, first = -np.inf, np.inf
        for core in self._core(low, high):
            values = core[:, axis]
            upto = values <= place
            last = max(last, float(values[upto].max(initial=-np.inf)))
            first = min(first, float(values[~upto].min(initial=np.inf)))
        return last, first

    def _core(self, low: Corner, high: Corner) -> Iterator[NDArray[np.float64]]:
        for ground, _ in self._pieces():
            yield ground[((ground >= low) & (ground < high)).all(1)]

    def _pieces(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        for bucket in self._held:
            yield _of_bucket(self._files, bucket, self._low, self._high)


def places_within(files: Buckets, buckets: Sequence[Bucket], low: Corner, high: Corner) -> Places:
    """The places of a rectangle, borders included, in memory if there are not too many."""
    grounds, weights, count = [np.empty((0, 2))], [np.empty(0, np.int64)], 0
    for bucket in intersecting(buckets, low, high):
        ground, weight = _of_bucket(files, bucket, low, high)
        count += len(ground)
        if count > IN_MEMORY:
            return PlacesOnDisk(files, buckets, low, high)
        grounds.append(ground)
        weights.append(weight)
    return ArrayPlaces(np.concatenate(grounds), np.concatenate(weights))


def _of_bucket(
    files: Buckets, bucket: Bucket, low: Corner, high: Corner
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    places = files.places(bucket.number)
    ground = places["xy"].astype(np.float64)
    held = ((ground >= low) & (ground <= high)).all(1)
    return ground[held], places["points"][held].astype(np.int64)
