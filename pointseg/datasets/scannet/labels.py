"""Reads ScanNet's label table and the annotations of a scan."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.scannet import classes200
from pointseg.datasets.scannet.dataset import NYU40_IDS
from pointseg.scene import IGNORE

LABELS = ("segment20", "segment200", "instance")
"""Arrays of the labels of a scan."""
Classes = Mapping[str, tuple[int, int]]
"""Training index in both class lists for each name that annotators used."""


def read_label_table(path: Path) -> dict[str, tuple[int, int]]:
    """Read ``scannetv2-labels.combined.tsv``: training indices in both class lists by the annotators' names; -1: none.

    Raises:
        DatasetError: the table is missing, or lacks a column.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: is missing; it comes with ScanNet's download")
    of_nyu40 = {raw: index for index, raw in enumerate(NYU40_IDS)}
    of_200 = {raw: index for index, raw in enumerate(classes200.RAW_IDS)}
    classes = {}
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream, delimiter="\t")
            for row in rows:
                nyu40, own = int(row["nyu40id"] or 0), int(row["id"] or 0)
                classes[row["raw_category"]] = (
                    of_nyu40.get(nyu40, IGNORE),
                    of_200.get(own, IGNORE),
                )
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DatasetError(
            f"{path}: must have the columns raw_category, id and nyu40id, with numbers in the last two: {error!r}"
        ) from error
    if not classes:
        raise DatasetError(f"{path}: holds no classes")
    return classes


def read_labels(
    segments: Path, objects: Path, classes: Classes, count: int
) -> tuple[dict[str, NDArray[np.int16]], list[str]]:
    """Labels of a mesh's vertices: each is in a segment, and annotators named groups of segments.

    Args:
        segments: ``.segs.json``, the segment of each vertex.
        objects: ``.aggregation.json``, the segments and the name of each object.
        classes: training indices by name.
        count: number of vertices.

    Returns:
        ``LABELS``, each (count,); notes on names that are not in the table, whose vertices are ignored.

    Raises:
        DatasetError: a file is missing or damaged, or of another mesh.
    """
    of_vertex = _segment_indices(segments)
    if len(of_vertex) != count:
        raise DatasetError(
            f"{segments}: has segments for {len(of_vertex)} vertices, the mesh has {count}"
        )
    known, place = np.unique(of_vertex, return_inverse=True)
    # One row per segment; of groups that share one the last counts, as in the benchmark.
    of_segment = np.full((len(known), 3), IGNORE, np.int16)
    unknown: Counter[str] = Counter()
    missing = 0
    for number, name, members in _groups(objects):
        if name not in classes:
            unknown[name] += 1
        rows = np.searchsorted(known, members)
        rows = np.minimum(rows, max(len(known) - 1, 0))
        found = known[rows] == members if len(known) else np.zeros(len(members), bool)
        missing += int((~found).sum())
        of_segment[rows[found]] = (*classes.get(name, (IGNORE, IGNORE)), number)
    labels = {key: of_segment[place, column] for column, key in enumerate(LABELS)}
    notes = []
    if unknown:
        names = ", ".join(f"{name!r} ({times})" for name, times in unknown.most_common(10))
        notes.append(
            f"{unknown.total()} objects are ignored, whose names are not in the label table: {names}"
        )
    if missing:
        notes.append(f"{missing} segments of objects have no vertices")
    return labels, notes


def _segment_indices(path: Path) -> NDArray[np.int64]:
    found = _read_json(path, "segIndices")
    try:
        values = np.array(found, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{path}: 'segIndices' must be whole numbers: {error}") from error
    if values.ndim != 1:
        raise DatasetError(f"{path}: 'segIndices' must be a list of numbers")
    return values


def _groups(path: Path) -> list[tuple[int, str, NDArray[np.int64]]]:
    """Number, name and segments of each object."""
    groups = []
    try:
        for group in _read_json(path, "segGroups"):
            members = np.array(group["segments"], dtype=np.int64).reshape(-1)
            number = int(group["id"])
            if not 0 <= number <= np.iinfo(np.int16).max:
                raise ValueError(f"object number {number}")
            groups.append((number, str(group["label"]), members))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{path}: each of 'segGroups' must have id, label and segments: {error!r}"
        ) from error
    return groups


def _read_json(path: Path, key: str) -> list[Any]:
    if not path.is_file():
        raise DatasetError(f"{path}: is missing, so that the scan has no labels; download it again")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[key]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: is damaged, it must be JSON with '{key}': {error}") from error
    if not isinstance(found, list):
        raise DatasetError(f"{path}: '{key}' must be a list")
    return found
