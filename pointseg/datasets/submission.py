"""Predictions as the benchmarks' servers want them: what a dataset that has such a server promises."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.errors import DatasetError
from pointseg.scene import Scene

Results = Iterable[tuple[str, Scene, NDArray[Any]]]
"""Name of a scene, the scene with all its points, and (N,) predicted classes."""


@runtime_checkable
class Submits(Protocol):
    """A dataset whose benchmark takes submissions."""

    def write_submission(
        self, out: Path, results: Results, *, split: str, use_camera: bool = False
    ) -> list[Path]:
        """Write the files of a submission for one split below ``out``; returns them.

        Args:
            out: the folder.
            results: of all scenes of the split.
            split: which.
            use_camera: whether images were used; benchmarks that ask for it are told.

        Raises:
            DatasetError: a prediction is missing for a point, or is no class.
        """


def checked_prediction(
    dataset: str, name: str, count: int, predicted: NDArray[Any], classes: int
) -> NDArray[np.int64]:
    """(N,) predictions that are one class for each of N points.

    Raises:
        DatasetError: another number, no integers, or classes that are not there.
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
