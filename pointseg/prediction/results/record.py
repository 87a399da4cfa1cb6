"""The record of a result, which says how it was made: results that would be the same now are kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.classes import ClassList
from pointseg.evaluation.saved_labels import write_json
from pointseg.files import CloudFileError, in_pieces, read_columns
from pointseg.files.columns.fields import labels_in
from pointseg.files.table.pieces import PIECE
from pointseg.pictures.viewpoints import VIEWPOINTS
from pointseg.prediction.inputs.input_files import Source
from pointseg.prediction.results.class_counts import ClassCounts
from pointseg.prediction.results.pictures import picture_file
from pointseg.prediction.results.prediction import Prediction

COLORS = "class_colors"
"""What records call the colours of the classes, which decide no class: records without them stay valid."""


def record_file(target: Path) -> Path:
    """The file that says how a result was made."""
    return target.with_name(f"{target.name}.json")


def file_state(path: Path) -> dict[str, Any]:
    """Size and time of change of a file, or of the files of a folder.

    Raises:
        CloudFileError: it cannot be read.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    try:
        stats = [file.stat() for file in files]
    except OSError as error:
        raise CloudFileError(path, f"could not be read: {error.strerror or error}") from error
    return {
        "source_bytes": sum(stat.st_size for stat in stats),
        "source_changed_ns": max((stat.st_mtime_ns for stat in stats), default=0),
    }


def valid_result(source: Source, how: dict[str, Any], *, pictures: bool) -> Prediction | None:
    """The existing result of a file, if it is complete and would be the same now."""
    try:
        record = json.loads(record_file(source.target).read_text(encoding="utf-8"))
        result = record.pop("result")
        record.pop(COLORS, None)
        if record != json.loads(json.dumps(how)) or result["source"] != str(source.path):
            return None
        if pictures and not all(picture_file(source.target, v).is_file() for v in VIEWPOINTS):
            return None
        columns = how["cloud_format"]["bin_columns"]
        found = ClassCounts.of(_labels_in(source.target, columns), how["class_names"])
        if (found.points, found.classes) != (result["points"], result["classes"]):
            return None
        return Prediction(**{**result, "status": "kept", "notes": tuple(result["notes"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # no record, or not one of ours


def write_record(target: Path, how: dict[str, Any], classes: ClassList, result: Prediction) -> None:
    """Write how a result was made, which makes it valid."""
    colors = {COLORS: classes.colors.tolist()}
    write_json(record_file(target), {**how, **colors, "result": asdict(result)})


def _labels_in(path: Path, columns: Sequence[str] | None) -> Iterator[NDArray[np.int32]]:
    """The labels of a file, in pieces where its type can be read so."""
    parts: Iterable[Mapping[str, NDArray[Any]]]
    try:
        parts = in_pieces(path, columns).read(PIECE)
    except CloudFileError:
        parts = [read_columns(path)]
    for part in parts:
        found = labels_in(part)
        if found is None:
            raise KeyError("segment")
        yield found
