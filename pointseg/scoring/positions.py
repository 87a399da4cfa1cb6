"""Whether the rows of two files are the same points: positions that are equal as far as the files hold them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pointseg.scoring.spec import ScoreError

SAMPLE = 20_000
"""Rows from which the step between positions is found."""
STEPS = tuple(m * 10.0**-d for d in range(-2, 7) for m in (1, 0.5, 0.25, 0.2))
"""Steps of positions that files are written with, from the largest."""
OFF_GRID = 1e-3
"""Share of a step by which a multiple of it may be off, because it was computed in floating point."""

Positions = NDArray[np.floating]


def check_same_points(prediction: tuple[str, Positions], reference: tuple[str, Positions]) -> float:
    """Refuse two files whose rows are not the same points in the same order.

    Args:
        prediction: name of the file, and (N, 3) its positions, NaN where there are none.
        reference: likewise.

    Returns:
        The difference that was accepted: what the coarser of the two files cannot tell apart.

    Raises:
        ScoreError: positions that differ; the message names the first row.
    """
    (name, found), (other, wanted) = prediction, reference
    away = np.zeros(len(found))
    is_off = np.zeros(len(found), bool)
    largest = 0.0
    for axis in range(3):
        ours, theirs = found[:, axis].astype(np.float64), wanted[:, axis].astype(np.float64)
        tolerance = _tolerance(found[:, axis], wanted[:, axis])
        with np.errstate(invalid="ignore"):
            difference = np.abs(ours - theirs)
        nowhere = ~np.isfinite(ours) & ~np.isfinite(theirs)
        difference[nowhere] = 0
        difference[np.isnan(difference)] = np.inf
        is_off |= difference > tolerance
        away = np.maximum(away, difference)
        largest = max(largest, tolerance)
    if is_off.any():
        row = int(is_off.argmax())
        raise ScoreError(
            f"{name}: row {row} is another point than in {other}, {away[row]:.3g} away "
            f"({_text(found[row])}, not {_text(wanted[row])}), as are {int(is_off.sum())} of {len(found)} rows "
            f"(up to {largest:.2g} would count as rounding): rows must correspond; predict the reference's file "
            "itself, or bring both into one order and one coordinate system"
        )
    return largest


def _tolerance(ours: Positions, theirs: Positions) -> float:
    """What may differ by rounding along one axis: the larger step, or nothing if both are on one grid."""
    rows = slice(None, None, max(1, len(ours) // SAMPLE))
    a, b = ours[rows], theirs[rows]
    coarse = max(step_of(a), step_of(b))
    both = np.concatenate([a.astype(np.float64), b.astype(np.float64)])
    is_one_grid = coarse > 0 and step_of(both) >= coarse
    size = np.abs(both[np.isfinite(both)]).max(initial=0)
    return float((0.5 if is_one_grid else 1.0) * coarse + 8 * np.spacing(size))


def step_of(values: Positions) -> float:
    """The step between the numbers that a file can tell apart: of its decimals or of float32; 0: none is seen."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if len(finite) == 0:
        return 0.0
    step = 0.0
    if (finite.astype(np.float32) == finite).all():
        step = float(np.spacing(np.float32(np.abs(finite).max())))
    offsets = finite - finite[0]  # scales of LAS count from an offset of any number of digits
    if not offsets.any():
        return step
    noise = 8 * max(np.spacing(np.abs(finite).max()), step)
    for size in STEPS:
        off = np.abs(offsets - size * np.rint(offsets / size)).max()
        if off <= min(OFF_GRID * size + noise, size / 10):
            return max(step, size)
    return step


def _text(position: Positions) -> str:
    return " ".join(f"{value:.10g}" for value in position)
