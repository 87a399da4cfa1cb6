"""How the values of a column are spread, counted piece by piece: ranges and shares of a whole cloud in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.columns.values import as_float32

RARE = 100
"""One value of so many may lie outside a range: glints and errors do not decide what the others mean."""
FEW_POINTS = 1000
"""Fewer points may well have one and the same value, if it is not 0."""


class Tally:
    """Counts of a column's values that exceed some limits, or stay below."""

    def __init__(self, above: Iterable[float] = (), below: Iterable[float] = ()) -> None:
        """Count nothing so far.

        Args:
            above: limits; values that exceed them are counted.
            below: limits; values below them are counted.
        """
        self._above, self._below = dict.fromkeys(above, 0), dict.fromkeys(below, 0)
        self.points = self.values = self.finite = 0
        """Points; their values; those of them that are finite numbers."""
        self.dtype: np.dtype[Any] | None = None
        self.whole = True
        """Whether all are whole numbers."""
        self._low: NDArray[np.float32] | None = None
        self._high: NDArray[np.float32] | None = None

    def add(self, values: NDArray[Any]) -> None:
        """Count (n,) or (n, k) values."""
        self.dtype = values.dtype
        numbers = as_float32(values if values.ndim > 1 else values[:, None])
        known = np.isfinite(numbers)
        is_known = bool(known.all())
        self.points += len(numbers)
        self.values += numbers.size
        self.finite += numbers.size if is_known else int(np.count_nonzero(known))
        if not len(numbers):
            return
        low, high = (numbers, numbers) if is_known else (
            np.where(known, numbers, np.float32(np.inf)),
            np.where(known, numbers, np.float32(-np.inf)),
        )  # fmt: skip
        low, high = low.min(0), high.max(0)
        self._low = low if self._low is None else np.minimum(self._low, low)
        self._high = high if self._high is None else np.maximum(self._high, high)
        flat = numbers.reshape(-1) if is_known else numbers[known]
        if self.whole and values.dtype.kind == "f":
            self.whole = bool((np.floor(flat) == flat).all())
        for limit in self._above:
            if high.max() > limit:
                self._above[limit] += int(np.count_nonzero(flat > limit))
        for limit in self._below:
            if low.min() < limit:
                self._below[limit] += int(np.count_nonzero(flat < limit))

    @property
    def is_float(self) -> bool:
        """Whether they are stored as floats."""
        return self.dtype is not None and self.dtype.kind == "f"

    @property
    def type_max(self) -> float | None:
        """The largest value of an unsigned type, 255 for one of bytes; None: they are of another type."""
        if self.dtype is None or self.dtype.kind not in "uib" or self.dtype.itemsize > 2:
            return None
        if self.dtype.itemsize == 1:
            return 255.0
        return 65535.0 if self.dtype.kind == "u" else None

    @property
    def lost(self) -> int:
        """Values that are no finite numbers."""
        return self.values - self.finite

    def above(self, limit: float) -> int:
        """How many exceed one of the limits."""
        return self._above[limit]

    def below(self, limit: float) -> int:
        """How many are below one of the limits."""
        return self._below[limit]

    def rarely_above(self, limit: float, *, of: int | None = None) -> bool:
        """Whether at most one of ``RARE`` exceeds a limit.

        Args:
            limit: one of the limits.
            of: how many values there are; None: the finite ones.
        """
        return self.above(limit) <= max((self.finite if of is None else of) - 1, 0) // RARE

    def rarely_below(self, limit: float) -> bool:
        """Whether at most one of ``RARE`` is below a limit."""
        return self.below(limit) <= max(self.finite - 1, 0) // RARE

    def only_value(self) -> tuple[float, ...] | None:
        """The k values that all points have; None: they differ, or there are too few points to say.

        Zeros, and what is no number, are taken for values that were never filled in from two points on.
        """
        if self._low is None or self._high is None or self.points < 2:
            return None
        if not self.finite:
            return (float("nan"),) * len(self._low)
        if not np.array_equal(self._low, self._high):
            return None
        if self._low.any() and self.points < FEW_POINTS:
            return None
        return tuple(self._low.tolist())


def percent(part: int, whole: int) -> str:
    """A share in words: "3 %", "0.2 %", "less than 0.1 %"."""
    share = 100 * part / max(whole, 1)
    if share < 0.1:
        return "less than 0.1 %"
    return f"{share:.0f} %" if share >= 10 else f"{share:.1f} %".replace(".0 %", " %")
