"""How the benchmarks score a confusion matrix: IoU, means over groups of classes, sums over folds.

All of it works on (K, K) counts, rows labels and columns predictions, summed over every point of every
scene: never on means of scenes' means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.dataset import ClassList


@dataclass(frozen=True)
class MeanIoU:
    """The mean IoU of some classes by both conventions for classes without points."""

    absent_as_zero: float
    """Over all of them; those without labelled or predicted points count as 0 (the benchmarks)."""
    present_only: float
    """Over those that have labelled or predicted points; NaN if none has."""


def class_iou(confusion: NDArray[Any]) -> NDArray[np.float64]:
    """(K,) intersection over union of each class; NaN where it has neither labels nor predictions.

    Raises:
        ValueError: ``confusion`` is not (K, K) counts.
    """
    counts = _checked(confusion)
    hits = counts.diagonal().astype(np.float64)
    union = counts.sum(0) + counts.sum(1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def mean_iou(confusion: NDArray[Any], classes: Sequence[int] | None = None) -> MeanIoU:
    """The mean IoU over some classes, or all of them.

    Raises:
        ValueError: ``confusion`` is not (K, K) counts, ``classes`` is empty or beyond K.
    """
    iou = class_iou(confusion)
    members = list(range(len(iou)) if classes is None else classes)
    if not members or not 0 <= min(members) <= max(members) < len(iou):
        raise ValueError(f"mean_iou: 'classes' must be some of 0 to {len(iou) - 1}, got {members}")
    chosen = iou[members]
    present = chosen[~np.isnan(chosen)]
    mean = float(present.mean()) if len(present) else float("nan")
    return MeanIoU(float(np.nan_to_num(chosen).mean()), mean)


def group_iou(confusion: NDArray[Any], classes: ClassList) -> dict[str, MeanIoU]:
    """The mean IoU over ``all`` classes and over each group of them, such as head, common and tail.

    Raises:
        ValueError: ``confusion`` is not (K, K) counts of these classes.
    """
    if np.shape(confusion) != (len(classes), len(classes)):
        raise ValueError(
            f"group_iou: 'confusion' must be ({len(classes)}, {len(classes)}), got {np.shape(confusion)}"
        )
    groups = {name: mean_iou(confusion, members) for name, members in classes.groups.items()}
    return {"all": mean_iou(confusion), **groups}


def sum_folds(confusions: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """The confusion matrix of a cross-validation: counts of all folds together.

    Intersections and unions are sums of counts, so the IoU of this matrix is the benchmark's: not
    the mean of the folds' IoUs.

    Raises:
        ValueError: no folds, or matrices that are not counts of one and the same classes.
    """
    if not confusions:
        raise ValueError("sum_folds: 'confusions' must hold at least one matrix, got none")
    checked = [_checked(confusion) for confusion in confusions]
    if len({matrix.shape for matrix in checked}) > 1:
        shapes = ", ".join(str(matrix.shape) for matrix in checked)
        raise ValueError(f"sum_folds: 'confusions' must have one shape, got {shapes}")
    return np.sum(checked, axis=0, dtype=np.int64)


def _checked(confusion: NDArray[Any]) -> NDArray[np.int64]:
    counts = np.asarray(confusion)
    square = counts.ndim == 2 and counts.shape[0] == counts.shape[1] and len(counts) > 0
    if not square or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(
            f"confusion: must be (K, K) counts, integers >= 0, got {counts.shape} {counts.dtype}"
        )
    return counts.astype(np.int64)
