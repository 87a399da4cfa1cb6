"""The classes that a cloud's points were found to have, and those that are too unsure to keep theirs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointseg.files.labelling.certainty import SavedCertainty, is_below
from pointseg.files.labelling.labels import SavedLabels
from pointseg.files.labelling.saved_rows import SavedRows
from pointseg.scene import IGNORE


@dataclass(frozen=True, kw_only=True)
class PointClasses:
    """Classes of N points."""

    labels: NDArray[np.int32] | SavedLabels
    """(N,) classes; -1 where there is none."""
    certainty: NDArray[np.uint16] | SavedCertainty | None = None
    """(N, 3) how sure they are; None: that was not asked for."""
    heights: NDArray[np.float32] | SavedRows | None = None
    """(N,) metres above the ground, NaN where there is no position; None: that was not asked for."""
    rejected: int = 0
    """Points that had less confidence than asked for."""


def reject(
    labels: NDArray[np.signedinteger], certainty: NDArray[np.uint16], confidence: float
) -> int:
    """Take the class from points with less confidence; returns how many there are.

    Args:
        labels: (n,) classes, which are changed.
        certainty: (n, 3) how sure they are.
        confidence: from 0 to 1; compared with what is written, of four digits.
    """
    unsure = is_below(certainty, confidence)
    labels[unsure] = IGNORE
    return int(unsure.sum())


def reject_note(rejected: int, points: int, confidence: float) -> str:
    """What the user should know of points whose class was taken."""
    share = 100 * rejected / max(1, points)
    return f"{rejected:,} of {points:,} points ({share:.1f} %) have a confidence below {confidence:g}, and no class"
