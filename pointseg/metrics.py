"""Confusion matrix of labels and predictions, and the scores computed from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointseg.scene import IGNORE

Labels = Tensor | NDArray[Any]


class Confusion:
    """How many points of each class were predicted as each class.

    All means are of sums over everything added, never means of scenes' means. Of a class without
    points, labelled or predicted, the IoU is not defined: :meth:`miou` counts it as 0, as the field's
    evaluations do, and :meth:`miou_present` leaves it out.
    """

    def __init__(self, num_classes: int) -> None:
        if num_classes < 1:
            raise ValueError(f"Confusion: 'num_classes' must be >= 1, got {num_classes}")
        self.matrix: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)
        """(K, K) points; rows are labels, columns predictions."""

    @classmethod
    def of(cls, matrix: NDArray[Any]) -> Confusion:
        """From a (K, K) matrix of counts, say a sum over processes.

        Raises:
            ValueError: not square, not integers, or below 0.
        """
        square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
        if not square or matrix.dtype.kind not in "iu" or (matrix < 0).any():
            raise ValueError(
                f"Confusion: 'matrix' must be (K, K) counts, got {matrix.shape} {matrix.dtype}"
            )
        made = cls(len(matrix))
        made.matrix = matrix.astype(np.int64)
        return made

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.matrix)

    def add(self, prediction: Labels, label: Labels) -> None:
        """Count points; those with label -1 do not count, whatever was predicted for them.

        Args:
            prediction: (N,) classes; a tensor may be on any device.
            label: (N,) classes, or -1; of the same kind and on the same device.

        Raises:
            ValueError: lengths that differ, classes outside 0 to K - 1, numbers that are not integers.
        """
        guess, truth = _tensor(prediction, "prediction"), _tensor(label, "label")
        if guess.shape != truth.shape or guess.dim() != 1:
            raise ValueError(
                f"Confusion.add: 'prediction' and 'label' must be (N,), got {tuple(guess.shape)} and "
                f"{tuple(truth.shape)}"
            )
        counted = truth != IGNORE
        guess, truth = guess[counted].long(), truth[counted].long()
        for name, values in (("prediction", guess), ("label", truth)):
            wrong = (values < 0) | (values >= self.num_classes)
            if wrong.any():
                ignored = f", or {IGNORE} where ignored" if name == "label" else ""
                raise ValueError(
                    f"Confusion.add: '{name}' must be in 0 to {self.num_classes - 1}{ignored}, got "
                    f"{int(values[wrong][0])} in {int(wrong.sum())} points"
                )
        cells = torch.bincount(truth * self.num_classes + guess, minlength=self.matrix.size)
        self.matrix += cells.cpu().numpy().reshape(self.matrix.shape)

    def merge(self, other: Confusion) -> None:
        """Add what another one has counted.

        Raises:
            ValueError: it has other classes.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(
                f"Confusion.merge: 'other' must have {self.num_classes} classes, got {other.num_classes}"
            )
        self.matrix += other.matrix

    def iou(self) -> NDArray[np.float64]:
        """(K,) intersection over union of each class, NaN where it has no points, labelled or predicted."""
        hits = self.matrix.diagonal()
        return _ratio(hits, self.matrix.sum(0) + self.matrix.sum(1) - hits)

    def recall(self) -> NDArray[np.float64]:
        """(K,) share of each class's labelled points that was found, NaN where it has none."""
        return _ratio(self.matrix.diagonal(), self.matrix.sum(1))

    def precision(self) -> NDArray[np.float64]:
        """(K,) share of each class's predicted points that are right, NaN where none was predicted."""
        return _ratio(self.matrix.diagonal(), self.matrix.sum(0))

    def f1(self) -> NDArray[np.float64]:
        """(K,) harmonic mean of precision and recall; NaN where no point is labelled or predicted so."""
        hits = self.matrix.diagonal()
        return _ratio(2 * hits, self.matrix.sum(0) + self.matrix.sum(1))

    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond that of chance, 1 at best; NaN where chance agrees everywhere.

        Source: J. Cohen, A coefficient of agreement for nominal scales (1960).
        """
        total = max(1, self.matrix.sum())
        labelled, predicted = self.matrix.sum(1) / total, self.matrix.sum(0) / total
        by_chance = float(labelled @ predicted)
        found = self.accuracy()
        return float("nan") if by_chance >= 1 else (found - by_chance) / (1 - by_chance)

    def miou(self, classes: Sequence[int] | None = None) -> float:
        """Mean IoU over some classes, or all; those without points count as 0."""
        return _mean(np.nan_to_num(self._of(self.iou(), classes)))

    def miou_present(self, classes: Sequence[int] | None = None) -> float:
        """Mean IoU over those of some classes, or all, that have points; NaN if none has."""
        iou = self._of(self.iou(), classes)
        return _mean(iou[~np.isnan(iou)])

    def accuracy(self) -> float:
        """Share of points with the right class; NaN without points."""
        return float(_ratio(self.matrix.trace(), self.matrix.sum()))

    def mean_accuracy(self) -> float:
        """Mean recall over all classes; those without labelled points count as 0."""
        return _mean(np.nan_to_num(self.recall()))

    def mean_accuracy_present(self) -> float:
        """Mean recall over the classes that have labelled points; NaN if none has."""
        recall = self.recall()
        return _mean(recall[~np.isnan(recall)])

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """All scores for JSON; undefined ones are None.

        Raises:
            ValueError: not one name per class.
        """
        self._check_names(names)
        return {
            "points": int(self.matrix.sum()),
            "miou": _or_none(self.miou()),
            "miou_present": _or_none(self.miou_present()),
            "accuracy": _or_none(self.accuracy()),
            "mean_accuracy": _or_none(self.mean_accuracy()),
            "mean_accuracy_present": _or_none(self.mean_accuracy_present()),
            "iou": {n: _or_none(v) for n, v in zip(names, self.iou(), strict=True)},
            "recall": {n: _or_none(v) for n, v in zip(names, self.recall(), strict=True)},
        }

    def table(self, names: Sequence[str]) -> str:
        """A text table with one line per class, then the means, in percent; "-" where not defined.

        Raises:
            ValueError: not one name per class.
        """
        self._check_names(names)
        rows = [
            (name, _percent(iou), _percent(recall), f"{count:,}")
            for name, iou, recall, count in zip(
                names, self.iou(), self.recall(), self.matrix.sum(1), strict=True
            )
        ]
        absent_as_0, present = "mean, absent as 0", "mean of present"
        rows += [
            (absent_as_0, _percent(self.miou()), _percent(self.mean_accuracy()), ""),
            (present, _percent(self.miou_present()), _percent(self.mean_accuracy_present()), ""),
            ("all points", "", _percent(self.accuracy()), f"{self.matrix.sum():,}"),
        ]
        table = pd.DataFrame(rows, columns=["class", "IoU", "recall", "points"])
        table = table.set_index("class").rename_axis(None).rename_axis("class", axis=1)
        return str(table.to_string())

    def _of(
        self, values: NDArray[np.float64], classes: Sequence[int] | None
    ) -> NDArray[np.float64]:
        return values if classes is None else values[list(classes)]

    def _check_names(self, names: Sequence[str]) -> None:
        if len(names) != self.num_classes:
            raise ValueError(
                f"Confusion: 'names' must be {self.num_classes}, one per class, got {len(names)}"
            )


def _tensor(values: Labels, name: str) -> Tensor:
    """As integers; arrays of any integer type, byte order and protection."""
    if isinstance(values, Tensor):
        fits = not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
    else:
        fits = values.dtype.kind in "iu"
    if not fits:
        raise ValueError(f"Confusion.add: '{name}' must be integers, got {values.dtype}")
    return values if isinstance(values, Tensor) else torch.from_numpy(values.astype(np.int64))


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"
