"""The first look at a cloud that does not fit into memory: what all of its points decide together."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointseg.files import known_intensity_max
from pointseg.files.columns.fields import FileFields, fields_in
from pointseg.files.columns.origin import LARGE, STEP
from pointseg.files.columns.scales import NOT_STATED, Scales, ValueRanges, Values
from pointseg.files.table.pieces import PIECE, Pieces
from pointseg.prediction.streaming.order_statistics import order_statistics
from pointseg.scene import FIELDS

SAMPLE = 500_000
"""Points that are kept to see how a cloud is spread."""
REACH = 200_000
"""Steps of an origin that are counted on each side of zero, 20,000 km; medians further out are found in more passes."""


@dataclass(frozen=True)
class Survey:
    """What is known of a cloud after all of its points were read once."""

    scales: Scales
    """Origin, ranges of the file's values, and fields that were never filled."""
    finite: int
    """Points with a position."""
    low: NDArray[np.float64]
    """(3,) minimum of these, in the file's coordinates less the origin."""
    high: NDArray[np.float64]
    """(3,) maximum."""
    sample: NDArray[np.float32]
    """(n, 3) some of these, spread over the file, less the origin."""


def survey(
    path: Path,
    pieces: Pieces,
    *,
    stated: ValueRanges = NOT_STATED,
    needs: Collection[str] = FIELDS,
) -> Survey:
    """Read a file once, in pieces.

    Args:
        path: the file.
        pieces: of it.
        stated: ranges of its values that are not to be found.
        needs: fields whose values are looked at.

    Raises:
        CloudFileError: it is damaged.
    """
    look = _Look(path, pieces)
    values = Values(stated, known_intensity_max=known_intensity_max(path))
    for columns in pieces.read(PIECE):
        found = fields_in(path, columns)
        look.add(found)
        values.add(found, needs)
    origin = look.origin()
    with np.errstate(over="ignore"):  # as of all positions: beyond float32
        low, high = ((edge - origin).astype(np.float32) for edge in (look.low, look.high))
        sample = (np.concatenate(look.sample) - origin).astype(np.float32)
    return Survey(
        values.scales(origin),
        look.finite,
        low.astype(np.float64),
        high.astype(np.float64),
        sample[np.isfinite(sample).all(1)],
    )


@dataclass
class _Look:
    """What the pieces so far have shown."""

    path: Path
    pieces: Pieces
    finite: int = 0
    low: NDArray[np.float64] = field(default_factory=lambda: np.full(3, np.inf))
    high: NDArray[np.float64] = field(default_factory=lambda: np.full(3, -np.inf))
    sample: list[NDArray[np.float64]] = field(default_factory=lambda: [np.empty((0, 3))])
    _reach: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    _numbers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))
    _steps: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((3, 2 * REACH + 1), np.int64)
    )
    _xyz_type: np.dtype[np.floating] = field(default_factory=lambda: np.dtype(np.float64))

    def add(self, found: FileFields) -> None:
        """Take in a piece."""
        xyz = found.xyz.astype(np.float64, copy=False)
        self._xyz_type = found.xyz.dtype
        for axis in range(3):
            values = xyz[:, axis]
            values = values[np.isfinite(values)]
            self._numbers[axis] += len(values)
            self._reach[axis] = max(self._reach[axis], np.abs(values).max(initial=0))
            steps = np.clip(np.rint(values / STEP), -REACH, REACH).astype(np.int64)
            self._steps[axis] += np.bincount(steps + REACH, minlength=2 * REACH + 1)
        with np.errstate(over="ignore"):
            held = xyz[np.isfinite(xyz.astype(np.float32)).all(1)]
        if len(held):
            self.finite += len(held)
            self.low = np.minimum(self.low, held.min(0))
            self.high = np.maximum(self.high, held.max(0))
            step = max(1, self.pieces.count // SAMPLE)
            self.sample.append(held[::step].copy())  # a view would keep all points

    def origin(self) -> NDArray[np.float64]:
        """(3,) as ``split_origin`` finds it: the step nearest to the median."""
        origin = np.zeros(3)
        for axis in range(3):
            if self._reach[axis] <= LARGE:
                continue
            ranks = [(int(self._numbers[axis]) - 1) // 2, int(self._numbers[axis]) // 2]
            ends = np.cumsum(self._steps[axis])
            steps = set((np.searchsorted(ends, ranks, side="right") - REACH).tolist())
            if len(steps) == 1 and not steps & {-REACH, REACH}:
                origin[axis] = STEP * steps.pop()
            else:  # the two in the middle round differently
                middle = order_statistics(lambda: self._axis(axis), ranks, np.float64)  # noqa: B023
                median = float(np.median(np.array(middle, self._xyz_type)))
                origin[axis] = STEP * round(median / STEP)
        return origin

    def _axis(self, axis: int) -> Iterator[NDArray[np.floating]]:
        for columns in self.pieces.read(PIECE):
            values = fields_in(self.path, columns).xyz[:, axis].astype(np.float64)
            yield values[np.isfinite(values)]
