"""The case of a record, so that its scans are read again exactly as they were for the prediction."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dinomed3d.inference.case import Case, CaseError, Scan
from dinomed3d.inference.cohort.outputs.describe import describe_inputs

CHANGED = "the scan has changed since it was predicted: the mask may not belong to what is shown"
"""Note on a case whose files are not those that the record names."""


def recorded_case(record: Mapping[str, Any]) -> tuple[Case, tuple[str, ...]]:
    """What was predicted, and the names of its channels.

    Args:
        record: of a finished case.

    Raises:
        CaseError: The record does not say how its scans were read, or a file of them is gone.
    """
    name = record["case"]
    try:
        reading = record["read_as"]
        channels = tuple(_texts(reading["channels"]))
        scans = tuple(
            _scan(entry, how) for entry, how in zip(record["inputs"], reading["scans"], strict=True)
        )
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise CaseError(
            f"{name}: its record does not say how its scan was read (an earlier version wrote it); predict it again "
            "with --overwrite, or open scan and mask in another viewer"
        ) from err
    case = Case(id=name, scans=scans)
    for scan in scans:
        for file in [scan.archive] if scan.archive is not None else scan.files:
            if not os.path.exists(file):
                raise CaseError(f"{file}: is not there any more; move it back to look at {name}")
    return case, channels


def has_changed(record: Mapping[str, Any], case: Case, channels: tuple[str, ...]) -> bool:
    """Whether files of a case have another size or time than when they were predicted."""
    return bool(record["inputs"] != describe_inputs(case, channels))


def _scan(entry: Mapping[str, Any], how: Mapping[str, Any]) -> Scan:
    archive = entry["archive"]
    return Scan(
        files=tuple(_texts(entry["files"])),
        archive=None if archive is None else _texts([archive])[0],
        series=_texts([entry["series"]])[0],
        ending=_texts([how["ending"]])[0],
        uid=_texts([how["uid"]])[0],
        frames=tuple(int(frame) for frame in how["frames"]),
        reader=_texts([how["reader"]])[0],
    )


def _texts(values: list[Any]) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise TypeError("must be texts")
    return values
