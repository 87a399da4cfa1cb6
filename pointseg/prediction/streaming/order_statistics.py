"""Values at given ranks of numbers that are read in pieces, exactly and in little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGIT = 16  # bits that one pass over the numbers finds


def order_statistics(
    pieces: Callable[[], Iterable[NDArray[Any]]],
    ranks: Sequence[int],
    dtype: type[np.float32] | type[np.float64],
) -> list[float]:
    """What sorted numbers have at some ranks, by radix selection: a count per digit, from the first digit on.

    Args:
        pieces: gives the numbers anew at each call, (n,) of ``dtype``, without NaN; two passes for float32, four for
            float64, for each of the ranks at once.
        ranks: places in the sorted order, from 0 on, fewer than there are numbers.
        dtype: of the numbers.

    Returns:
        A number for each rank.
    """
    bits = np.dtype(dtype).itemsize * 8
    prefix, before = [0] * len(ranks), [0] * len(ranks)  # the digits found; numbers below them
    for shift in range(bits - DIGIT, -1, -DIGIT):
        counts = np.zeros((len(ranks), 2**DIGIT), np.int64)
        for values in pieces():
            keys = _keys(np.ascontiguousarray(values, dtype), bits)
            digits = (keys >> np.uint64(shift)) & np.uint64(2**DIGIT - 1)
            for number, found in enumerate(prefix):
                held = digits
                if shift < bits - DIGIT:
                    held = digits[keys >> np.uint64(shift + DIGIT) == np.uint64(found)]
                counts[number] += np.bincount(held.astype(np.int64), minlength=2**DIGIT)
        for number, rank in enumerate(ranks):
            ends = np.cumsum(counts[number])
            digit = int(np.searchsorted(ends, rank - before[number], side="right"))
            before[number] += int(ends[digit] - counts[number, digit])
            prefix[number] = prefix[number] << DIGIT | digit
    return [_value(key, bits, dtype) for key in prefix]


def _keys(values: NDArray[Any], bits: int) -> NDArray[np.uint64]:
    """Numbers as integers in the same order: the sign is turned, and below zero all other bits."""
    raw = values.view(f"u{bits // 8}").astype(np.uint64)
    sign = np.uint64(1 << (bits - 1))
    negative = (raw & sign) != 0
    return np.where(negative, ~raw & np.uint64(2**bits - 1), raw | sign)


def _value(key: int, bits: int, dtype: type[np.float32] | type[np.float64]) -> float:
    sign = 1 << (bits - 1)
    raw = key ^ sign if key & sign else ~key & (2**bits - 1)
    return float(np.array([raw], f"u{bits // 8}").view(dtype)[0])
