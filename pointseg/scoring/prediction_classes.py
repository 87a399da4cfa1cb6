"""What predicted labels mean: the record of a prediction, and the classes that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.columns.names import SPARE_CLASS_FIELD, key_of
from pointseg.files.labelling.labels import UNCLASSIFIED
from pointseg.prediction.results.record import COLORS, record_file
from pointseg.scoring.labels import CLASSIFICATION, FileLabels
from pointseg.scoring.spec import ScoreError

NO_CLASS = -1
"""Number of points without a class, in predictions; in references they do not count."""
SHOWN = 6
"""Values that a message lists."""


@dataclass(frozen=True)
class Record:
    """What ``pointseg-predict`` wrote about a file."""

    path: Path
    """The record."""
    names: tuple[str, ...]
    """K names of classes; predicted labels are indices into it."""
    codes: tuple[int, ...] | None
    """K ASPRS codes; None: it knows none."""
    points: int | None
    """Points of the file; None: it does not say."""
    colors: tuple[tuple[int, int, int], ...] | None = None
    """K colours, red, green, blue; None: it does not say."""


@dataclass(frozen=True)
class Classes:
    """The classes of predicted labels: a number and a name each; None: whatever numbers occur."""

    names: Mapping[int, str] | None
    """Name by number in the predicted labels."""
    are_codes: bool
    """Whether the numbers are ASPRS codes."""

    def number(self, text: str) -> int | None:
        """The number of a class by its name or number; None: there is no such class."""
        named = [n for n, name in (self.names or {}).items() if name == text]
        if named:
            return named[0]
        number = int(text) if text.removeprefix("-").isdecimal() else None
        return number if self.names is None or number in self.names else None


def read_record(prediction: Path) -> Record | None:
    """The record next to a prediction; None: there is none.

    Raises:
        ScoreError: it is damaged.
    """
    path = record_file(prediction)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ScoreError(f"{path}: is not JSON; predict {prediction.name} again") from error
    if not isinstance(found, dict) or "class_names" not in found:
        return None  # another program's
    names, codes = found["class_names"], found.get("class_codes")
    fits = _is_list(names, str) and len(set(names)) == len(names) > 0
    if not fits or not (codes is None or _is_list(codes, int) and len(codes) == len(names)):
        raise ScoreError(
            f"{path}: its class_names or class_codes are damaged; predict {prediction.name} again"
        )
    result = found.get("result")
    points = result.get("points") if isinstance(result, dict) else None
    return Record(
        path,
        tuple(names),
        None if codes is None else tuple(codes),
        points,
        _colors(found.get(COLORS), len(names)),
    )


def _colors(found: Any, count: int) -> tuple[tuple[int, int, int], ...] | None:
    """Colours as a record has them; None: it has none that can be shown, which decides nothing."""
    if not _is_list(found, list) or len(found) != count:
        return None
    if not all(
        _is_list(color, int) and len(color) == 3 and all(0 <= value <= 255 for value in color)
        for color in found
    ):
        return None
    return tuple((color[0], color[1], color[2]) for color in found)


def record_of(labels: FileLabels, record: Record | None) -> Record | None:
    """The record, if it says what these labels mean; None: they are not those that it describes.

    Raises:
        ScoreError: it is of another file.
    """
    if record is None:
        return None
    if record.points is not None and record.points != labels.points:
        raise ScoreError(
            f"{record.path}: is the record of a file of {record.points} points, {labels.path.name} has "
            f"{labels.points}; predict it again, or remove the record"
        )
    return record if labels.is_result or key_of(labels.field) == CLASSIFICATION else None


def classes_of(labels: FileLabels, record: Record | None) -> Classes:
    """What the predicted labels mean, by their field and the record.

    Raises:
        ScoreError: ``classification`` that holds what the input had.
    """
    if record is None:
        return Classes(None, labels.is_codes)
    if not labels.is_codes:
        return Classes(dict(enumerate(record.names)), False)
    if record.codes is None:
        raise ScoreError(
            f"{labels.path}: its field '{labels.field}' is that of its input, for the model knew no codes; "
            f"give --prediction-field {SPARE_CLASS_FIELD}"
        )
    by_code: dict[int, list[str]] = {}
    for name, code in zip(record.names, record.codes, strict=True):
        by_code.setdefault(code, []).append(name)
    return Classes({code: "/".join(names) for code, names in by_code.items()}, True)


def checked_prediction(labels: FileLabels, classes: Classes) -> NDArray[np.int32]:
    """(N,) the predicted classes; ``NO_CLASS`` where there is none.

    Raises:
        ScoreError: numbers that are no class of the record.
    """
    values = labels.values
    if classes.names is None:
        return np.where(values < 0, NO_CLASS, values)
    if classes.are_codes and UNCLASSIFIED not in classes.names:
        values = np.where(values == UNCLASSIFIED, NO_CLASS, values)
    wrong = ~np.isin(values, [*classes.names, NO_CLASS])
    if wrong.any():
        raise ScoreError(
            f"{labels.path}: its field '{labels.field}' holds {listed(values[wrong])}, and its record "
            f"knows {named(classes.names)}; give another --prediction-field, or predict it again"
        )
    return values


def named(names: Mapping[int, str]) -> str:
    """Classes with their numbers."""
    return ", ".join(f"{number}={name}" for number, name in names.items()) or "numbers"


def listed(values: NDArray[np.int32]) -> str:
    """Values with the number of their points."""
    found, counts = np.unique(values, return_counts=True)
    pairs = list(zip(found, counts, strict=True))
    more = ", ..." if len(pairs) > SHOWN else ""
    return ", ".join(f"{value} ({count} points)" for value, count in pairs[:SHOWN]) + more


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, kind) and not isinstance(each, bool) for each in value
    )
