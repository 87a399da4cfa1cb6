"""What ``pointseg-eval`` is asked for, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from pointseg.metrics import Confusion


class ScoreError(UserError):
    """A prediction and a reference that cannot be compared: the message names the file and what to do."""


@dataclass(frozen=True)
class ScoreSpec:
    """Which files are compared, and what their labels mean where the files do not say so."""

    prediction: Path
    """A file, or a folder of files."""
    reference: Path
    """Likewise; files of folders belong together by their path without the ending."""
    prediction_field: str | None = None
    """The field of the predicted labels; None: the one that readers take."""
    reference_field: str | None = None
    """Likewise, of the reference's."""
    same_values: bool | None = None
    """Whether equal numbers mean equal classes (True), or the reference's are ASPRS codes (False). None: the
    fields and the record of the prediction say so."""
    class_of: Mapping[int, str] = field(default_factory=dict)
    """Class, by name or number, of values of the reference."""
    ignored: frozenset[int] = frozenset()
    """Values of the reference whose points do not count."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of text and ``.bin`` files, as for ``read_cloud``."""
    log: Callable[[str], None] = lambda line: None
    """Receives the name of each pair before it is read."""


@dataclass(frozen=True)
class Meaning:
    """Which fields of a pair were compared, and what their numbers mean."""

    prediction_field: str
    """The field of the predicted labels."""
    prediction_values: str
    """What its numbers are."""
    reference_field: str
    """The field of the reference labels."""
    reference_values: str
    """What its numbers are, and what says so."""
    mapping: dict[int, str]
    """The class of each value of the reference that occurs and counts."""
    ignored: tuple[int, ...]
    """Values of the reference that occur and were to be ignored."""


@dataclass(frozen=True)
class PairScore:
    """One prediction with its reference."""

    prediction: str
    """The file."""
    reference: str
    """Its reference."""
    error: str | None = None
    """Why it could not be compared; None: it was."""
    points: int = 0
    """Points with a reference class."""
    ignored: int = 0
    """Points without one."""
    accuracy: float | None = None
    """Share of right points; None: no point counted."""
    miou: float | None = None
    """Mean IoU over the classes that occur in it."""
    meaning: Meaning | None = None
    """Which fields were compared, and how."""
    tolerance: float | None = None
    """Difference of positions that was accepted, in the unit of the files; None: one of them holds labels alone."""


@dataclass(frozen=True)
class Scored:
    """All pairs together."""

    names: tuple[str, ...]
    """K names of the rows and columns of the matrix."""
    confusion: Confusion
    """(K, K) all points that count."""
    classes: int
    """How many of the rows are classes; one more is that of points without a predicted class."""
    pairs: tuple[PairScore, ...]
    """Each pair, in order of the names."""
    missing: tuple[str, ...] = ()
    """References without a prediction."""
    surplus: tuple[str, ...] = ()
    """Predictions without a reference."""

    @property
    def failed(self) -> list[PairScore]:
        """Pairs that could not be compared."""
        return [pair for pair in self.pairs if pair.error is not None]

    @property
    def is_complete(self) -> bool:
        """Whether every reference was compared with its prediction."""
        return not self.failed and not self.missing

    def means(self) -> dict[str, float]:
        """Means over the classes that occur, in the reference or the prediction; what is not defined counts as 0."""
        values = self.per_class()
        occurs = ~np.isnan(values["iou"])
        return {
            name: float(np.nan_to_num(column[occurs]).mean()) if occurs.any() else float("nan")
            for name, column in values.items()
        }

    def per_class(self) -> dict[str, NDArray[np.float64]]:
        """(classes,) each score of each class, NaN where it is not defined."""
        counted, classes = self.confusion, slice(self.classes)
        return {
            "iou": counted.iou()[classes],
            "precision": counted.precision()[classes],
            "recall": counted.recall()[classes],
            "f1": counted.f1()[classes],
        }
