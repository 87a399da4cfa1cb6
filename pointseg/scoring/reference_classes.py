"""What the labels of a reference mean, in numbers of the prediction's classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pointseg.prediction.results.record import record_file
from pointseg.scene import IGNORE
from pointseg.scoring.labels import FileLabels
from pointseg.scoring.prediction_classes import SHOWN, Classes, Record, listed, named
from pointseg.scoring.spec import Meaning, ScoreError, ScoreSpec


def to_classes(
    reference: FileLabels,
    prediction: FileLabels,
    classes: Classes,
    record: Record | None,
    own: Record | None,
    spec: ScoreSpec,
) -> tuple[NDArray[np.int32], Meaning]:
    """The reference's labels as numbers of the prediction's.

    Args:
        reference: what is mapped.
        prediction: for messages, and its field.
        classes: of the prediction.
        record: of the prediction.
        own: of the reference, which may be a prediction, too.
        spec: says what the files do not.

    Returns:
        (N,) numbers, -1 where the point does not count; and what was compared.

    Raises:
        ScoreError: the files do not say how; values that no class has.
    """
    present = [int(value) for value in np.unique(reference.values)]
    wanted = [v for v in present if v >= 0 and v not in spec.ignored]
    table, how = _table(wanted, reference, prediction, classes, record, own, spec)
    unknown = [value for value in wanted if value not in table]
    if unknown:
        at = np.isin(reference.values, unknown)
        known = (
            f"classes are {named(classes.names)}" if classes.names else "other values are mapped"
        )
        may_be_codes = record is not None and record.codes and not reference.is_codes
        codes = ", or --reference-values codes if they are ASPRS codes" if may_be_codes else ""
        raise ScoreError(
            f"{reference.path}: its field '{reference.field}' holds {listed(reference.values[at])}, which no class "
            f"of the prediction has ({known}); give --ignore {' '.join(map(str, unknown))} where such points shall "
            f"not count, or --map {unknown[0]}=CLASS{codes}"
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


def _table(
    wanted: Sequence[int],
    reference: FileLabels,
    prediction: FileLabels,
    classes: Classes,
    record: Record | None,
    own: Record | None,
    spec: ScoreSpec,
) -> tuple[dict[int, int], str]:
    """The class of each value, and what that rests on."""
    if own is not None and not reference.is_codes and classes.names and spec.same_values is None:
        table = _by_name(own, classes)
        how = "numbers of classes, by name in its own record"
    else:
        table, how = _base(wanted, reference, prediction, classes, record, spec)
    for value, name in spec.class_of.items():
        number = classes.number(name)
        if number is None:
            raise ScoreError(
                f"--map {value}={name}: the prediction's classes are {named(classes.names or {})}"
            )
        table[value] = number
    return table, how


def _by_name(own: Record, classes: Classes) -> dict[int, int]:
    """The prediction's number of each class of a reference that was predicted as well."""
    numbers = {n: classes.number(name) for n, name in enumerate(own.names)}
    return {n: number for n, number in numbers.items() if number is not None}


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
    is_clear = reference.is_codes and (codes is not None or classes.are_codes)
    if same is None and spec.class_of and not is_clear:
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
    open_ = set(wanted) - spec.class_of.keys()
    if twice := sorted({code for code in codes if codes.count(code) > 1 and code in open_}):
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


def _numbers(values: Sequence[int]) -> str:
    more = ", ..." if len(values) > SHOWN else ""
    return ", ".join(map(str, values[:SHOWN])) + more
