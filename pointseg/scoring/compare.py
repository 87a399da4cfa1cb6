"""The predicted and the reference class of each point of two files, in numbers of one list of classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointseg.scoring.labels import FileLabels
from pointseg.scoring.positions import check_same_points
from pointseg.scoring.prediction_classes import (
    Classes,
    Record,
    checked_prediction,
    classes_of,
    record_of,
)
from pointseg.scoring.reference_classes import to_classes
from pointseg.scoring.spec import Meaning, ScoreError, ScoreSpec


@dataclass(frozen=True)
class Compared:
    """Two files whose rows are the same points."""

    guess: NDArray[np.int32]
    """(N,) predicted classes, ``NO_CLASS`` where there is none."""
    truth: NDArray[np.int32]
    """(N,) reference classes in the same numbers, ``IGNORE`` where the point does not count."""
    classes: Classes
    """What the numbers mean."""
    meaning: Meaning
    """Which fields were compared, and how."""
    tolerance: float | None
    """Difference of positions that was accepted; None: one of the files holds labels alone."""


def compare(
    prediction: FileLabels,
    reference: FileLabels,
    record: Record | None,
    own: Record | None,
    spec: ScoreSpec,
) -> Compared:
    """Bring the labels of two files into the same numbers.

    Args:
        prediction: labels of the one file, or of some of its rows.
        reference: labels of the same rows of the other one.
        record: of the prediction.
        own: of the reference, which may be a prediction, too.
        spec: says what the files do not.

    Raises:
        ScoreError: rows that are not the same points; the files do not say what their labels mean.
    """
    tolerance = _check_rows(prediction, reference)
    record, own = record_of(prediction, record), record_of(reference, own)
    classes = classes_of(prediction, record)
    guess = checked_prediction(prediction, classes)
    truth, meaning = to_classes(reference, prediction, classes, record, own, spec)
    return Compared(guess, truth, classes, meaning, tolerance)


def _check_rows(prediction: FileLabels, reference: FileLabels) -> float | None:
    """Refuse files whose rows are not the same points."""
    ours, theirs = prediction.points, reference.points
    if ours != theirs:
        raise ScoreError(
            f"{prediction.path}: has {ours} points, {reference.path} has {theirs}: rows must correspond; predict the "
            "reference's file itself, or take its labels over to these points first (nearest neighbour)"
        )
    if prediction.xyz is None or reference.xyz is None:
        return None
    return check_same_points(
        (str(prediction.path), prediction.xyz), (str(reference.path), reference.xyz)
    )
