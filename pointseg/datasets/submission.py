"""Submissions to the servers of benchmarks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.errors import DatasetError
from pointseg.scene import Scene

Results = Iterable[tuple[str, Scene, NDArray[Any]]]
"""Name of a scene, the scene with all its points, (N,) predicted classes."""


@runtime_checkable
class Submits(Protocol):
    """A dataset whose benchmark accepts submissions."""

    def write_submission(
        self, out: Path, results: Results, *, split: str, use_camera: bool = False
    ) -> list[Path]:
        """Write the files of a submission for one split below ``out``; returns them.

        Args:
            out: folder of the submission.
            results: predictions for all scenes of the split.
            split: name of the split.
            use_camera: whether images were used, which some benchmarks require to be stated.

        Raises:
            DatasetError: a point has no prediction, or one that is not a class.
        """


def checked_prediction(
    dataset: str, name: str, count: int, predicted: NDArray[Any], classes: int
) -> NDArray[np.int64]:
    """(N,) predictions, checked to be one class per point.

    Raises:
        DatasetError: another number of predictions, or values that are not classes.
    """
    values = np.asarray(predicted)
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise DatasetError(
            f"{dataset}: scene '{name}' needs a class for each of its {count} points, "
            f"got {values.shape} {values.dtype}"
        )
    wrong = (values < 0) | (values >= classes)
    if wrong.any():
        raise DatasetError(
            f"{dataset}: predictions for scene '{name}' must be 0 to {classes - 1} at every point, "
            f"{int(wrong.sum())} are others, such as {int(values[wrong][0])}"
        )
    return values.astype(np.int64)
