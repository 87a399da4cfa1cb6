"""Two slice increments in one stack (thin slices of the skull base, thick ones above), on even slices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHORTEST_RUN = 3
"""Gaps of one increment in a row, at least: fewer could be lost slices."""
MOST_RUNS = 3
LARGEST_RATIO = 10
_FINE, _COARSE, _BETWEEN = "fine", "coarse", "between"


def finest_of_two(
    gaps: NDArray[np.float64],
    numbers: Sequence[int] | None,
    *,
    tolerance: float,
    tolerance_mm: float,
) -> float | None:
    """The finer of two slice increments; None where the gaps are uneven in another way.

    There are two where every gap is one of two distances, each at least `SHORTEST_RUN` times in a row, in
    at most `MOST_RUNS` runs; one gap of a size in between may lie where they meet. A lost slice is one
    wide gap among narrow ones, or many whose images' numbers are missing, too.

    Examples:
        2.5 2.5 2.5 5 5 5 -> 2.5; 2 2 2 4 2 2 2 -> None (a lost slice).

    Args:
        gaps: mm between slices, in the order of their positions.
        numbers: InstanceNumber of each slice; None where they are not numbers.
        tolerance: of gaps, as a fraction.
        tolerance_mm: of gaps; the larger of the two applies.
    """
    fine, coarse = float(gaps.min()), float(gaps.max())
    near_fine, near_coarse = (
        np.abs(gaps - size) <= 2 * max(tolerance * size, tolerance_mm) for size in (fine, coarse)
    )
    if (near_fine & near_coarse).any() or coarse > LARGEST_RATIO * fine:
        return None
    fine = float(np.median(gaps[near_fine]))
    kinds = np.where(near_fine, _FINE, np.where(near_coarse, _COARSE, _BETWEEN))
    runs = [(kind, len(list(members))) for kind, members in groupby(kinds.tolist())]
    long = [kind for kind, length in runs if kind != _BETWEEN and length >= SHORTEST_RUN]
    between = [i for i, (kind, _) in enumerate(runs) if kind == _BETWEEN]
    where_they_meet = all(
        runs[i][1] == 1 and 0 < i < len(runs) - 1 and runs[i - 1][0] != runs[i + 1][0]
        for i in between
    )
    if len(long) + len(between) < len(runs) or not where_they_meet or len(long) > MOST_RUNS:
        return None
    if numbers is not None and numbers_are_missing(gaps, numbers, fine):
        return None
    return fine


def numbers_are_missing(gaps: NDArray[np.float64], numbers: Sequence[int], fine: float) -> bool:
    """Whether the images' numbers leave some out, as many as fit into the wide gaps.

    Args:
        gaps: mm between slices, in the order of their positions.
        numbers: InstanceNumber of each slice, in the same order.
        fine: mm between slices of which none is lost.
    """
    steps = np.abs(np.diff(numbers))
    return bool((steps > 1).any() and np.array_equal(steps, np.rint(gaps / fine)))


def on_even_slices(voxels: NDArray[Any], places: Sequence[float], count: int) -> NDArray[Any]:
    """Slices interpolated linearly onto even ones; the type stays, whole numbers are rounded.

    Args:
        voxels: (N, Y, X).
        places: where each slice lies among the even ones, ascending.
        count: number of even slices; beyond the last slice it is repeated.

    Returns:
        (count, Y, X).
    """
    even = np.empty((count, *voxels.shape[1:]), voxels.dtype)
    for number in range(count):
        above = int(np.searchsorted(places, number - 1e-6))
        if above == len(places) or abs(places[above] - number) <= 1e-6:
            even[number] = voxels[min(above, len(places) - 1)]
            continue
        below = above - 1
        weight = np.float32((number - places[below]) / (places[above] - places[below]))
        one, other = (voxels[i].astype(np.float32) for i in (below, above))
        mixed = one + weight * (other - one)
        even[number] = np.rint(mixed) if even.dtype.kind in "iu" else mixed
    return even
