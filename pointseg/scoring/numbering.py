"""What the numbers in the labels of a prediction and its reference mean, and how one becomes the other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.las import UNCLASSIFIED
from pointseg.prediction.results import record_file
from pointseg.scene import IGNORE
from pointseg.scoring.labels import FileLabels
from pointseg.scoring.spec import Meaning, ScoreError, ScoreSpec

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
    return Record(path, tuple(names), None if codes is None else tuple(codes))


def classes_of(labels: FileLabels, record: Record | None) -> Classes:
    """What the predicted labels mean, by their field and the record."""
    if record is None:
        return Classes(None, labels.is_codes)
    if not labels.is_codes or record.codes is None:
        # without codes 'classification' holds what the input had: the record says nothing of it
        return Classes(None if labels.is_codes else dict(enumerate(record.names)), labels.is_codes)
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
            f"{labels.path}: its field '{labels.field}' holds {_listed(values[wrong])}, and its record "
            f"knows {_named(classes.names)}; give another --prediction-field, or predict it again"
        )
    return values


def to_classes(
    reference: FileLabels,
    prediction: FileLabels,
    classes: Classes,
    record: Record | None,
    spec: ScoreSpec,
) -> tuple[NDArray[np.int32], Meaning]:
    """The reference's labels as numbers of the prediction's.

    Args:
        reference: what is mapped.
        prediction: for messages, and its field.
        classes: of the prediction.
        record: of the prediction.
        spec: says what the files do not.

    Returns:
        (N,) numbers, -1 where the point does not count; and what was compared.

    Raises:
        ScoreError: the files do not say how; values that no class has.
    """
    present = [int(value) for value in np.unique(reference.values)]
    wanted = [v for v in present if v >= 0 and v not in spec.ignored]
    table, how = _base(wanted, reference, prediction, classes, record, spec)
    for value, name in spec.class_of.items():
        number = classes.number(name)
        if number is None:
            raise ScoreError(
                f"--map {value}={name}: the prediction's classes are {_named(classes.names or {})}"
            )
        table[value] = number
    unknown = [value for value in wanted if value not in table]
    if unknown:
        at = np.isin(reference.values, unknown)
        known = (
            f"classes are {_named(classes.names)}" if classes.names else "other values are mapped"
        )
        raise ScoreError(
            f"{reference.path}: its field '{reference.field}' holds {_listed(reference.values[at])}, which no class "
            f"of the prediction has ({known}); give --ignore {' '.join(map(str, unknown))} where such points shall "
            f"not count, or --map {unknown[0]}=CLASS"
        )
    numbers = np.array([table.get(v, IGNORE) if v in wanted else IGNORE for v in present], np.int32)
    result = numbers[np.searchsorted(present, reference.values)] if present else reference.values
    kind = "ASPRS codes" if classes.are_codes else "numbers of classes"
    by = "by the prediction's record" if classes.names else "no record says their names"
    return result, Meaning(
        prediction_field=prediction.field,
        prediction_values=f"{kind}, {by}",
        reference_field=reference.field,
        reference_values=how,
        mapping={v: str((classes.names or {}).get(table[v], table[v])) for v in wanted},
        ignored=tuple(v for v in present if v in spec.ignored),
    )


def _base(
    wanted: Sequence[int],
    reference: FileLabels,
    prediction: FileLabels,
    classes: Classes,
    record: Record | None,
    spec: ScoreSpec,
) -> tuple[dict[int, int], str]:
    """The class of each value without ``--map``, and what that rests on."""
    codes = None if record is None or classes.are_codes else record.codes
    same = spec.same_values
    if same is None and spec.class_of and not (codes and reference.is_codes):
        return {}, "as --map says"
    if same is None:
        same = _are_same(wanted, reference, prediction, classes, record)
    by_map = " and --map" if spec.class_of else ""
    if same:
        known = wanted if classes.names is None else [v for v in wanted if v in classes.names]
        what = "ASPRS codes" if classes.are_codes else "numbers of classes"
        return {value: value for value in known}, f"the same {what} as the prediction's{by_map}"
    if classes.are_codes:
        raise ScoreError(
            f"--reference-values codes: the field '{prediction.field}' of {prediction.path} holds codes itself; "
            "give --reference-values same"
        )
    if record is None or codes is None:
        raise ScoreError(
            f"{prediction.path}: the codes of its classes are not known"
            f"{_without_record(prediction, record)}; give --map VALUE=CLASS for each value of the reference"
        )
    if twice := sorted({code for code in codes if codes.count(code) > 1 and code in wanted}):
        shared = [n for n, code in zip(record.names, codes, strict=True) if code == twice[0]]
        raise ScoreError(
            f"{record.path}: classes {' and '.join(shared)} have the same code {twice[0]}; compare codes with "
            "--prediction-field classification, or give --map"
        )
    table = dict(zip(codes, range(len(codes)), strict=True))
    return table, f"ASPRS codes, by the prediction's record{by_map}"


def _are_same(
    wanted: Sequence[int],
    reference: FileLabels,
    prediction: FileLabels,
    classes: Classes,
    record: Record | None,
) -> bool:
    """Whether the values of both fields mean the same; False: the reference's are codes. Doubt is refused."""
    options = "--reference-values same or codes says so, --map VALUE=CLASS each"
    if reference.is_codes == prediction.is_codes:
        codes = None if record is None or classes.are_codes else record.codes
        as_codes = codes is not None and set(wanted) <= set(codes)
        as_indices = set(wanted) <= set(classes.names or wanted)
        means_other = codes is not None and any(v >= len(codes) or codes[v] != v for v in wanted)
        if as_codes and means_other:
            both = "numbers of classes or ASPRS codes" if as_indices else "ASPRS codes"
            raise ScoreError(
                f"{reference.path}: the values of its field '{reference.field}' ({_numbers(wanted)}) may be {both}; "
                f"{options}"
            )
        return True
    if reference.is_codes and record is not None and record.codes is not None:
        return False
    raise ScoreError(
        f"{reference.path}: its field '{reference.field}' and '{prediction.field}' of {prediction.path} number "
        f"classes differently (ASPRS codes and indices)"
        f"{_without_record(prediction, record)}; {options}"
    )


def _without_record(prediction: FileLabels, record: Record | None) -> str:
    if record is None:
        return f", and {record_file(prediction.path).name} of pointseg-predict is not next to it"
    return ", and its record holds no codes" if record.codes is None else ""


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, kind) and not isinstance(each, bool) for each in value
    )


def _named(names: Mapping[int, str]) -> str:
    return ", ".join(f"{number}={name}" for number, name in names.items()) or "numbers"


def _numbers(values: Sequence[int]) -> str:
    more = ", ..." if len(values) > SHOWN else ""
    return ", ".join(map(str, values[:SHOWN])) + more


def _listed(values: NDArray[np.int32]) -> str:
    """Values with the number of their points."""
    found, counts = np.unique(values, return_counts=True)
    pairs = list(zip(found, counts, strict=True))
    more = ", ..." if len(pairs) > SHOWN else ""
    return ", ".join(f"{value} ({count} points)" for value, count in pairs[:SHOWN]) + more
