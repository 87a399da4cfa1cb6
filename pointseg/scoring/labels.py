"""The labels of one file, with its positions where it has some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files import CloudFileError, read_columns
from pointseg.files.columns.fields import fields_in
from pointseg.files.columns.names import SEGMENT, SPARE_CLASS_FIELD, key_of
from pointseg.files.columns.values import to_labels
from pointseg.files.labelling.labels import CLASSIFICATION
from pointseg.files.las.label import FORMER
from pointseg.files.scans.kitti import read_label
from pointseg.scoring.spec import ScoreError

LABEL_SUFFIXES = (".label", ".labels")
"""Files of labels without positions: SemanticKITTI's and Semantic3D's."""


@dataclass(frozen=True)
class FileLabels:
    """One file."""

    path: Path
    """The file."""
    field: str
    """The field that holds the labels."""
    values: NDArray[np.int32]
    """(N,) labels as the file has them, -1 where there is none."""
    xyz: NDArray[Any] | None
    """(N, 3) positions; None: it is a file of labels alone."""
    is_result: bool = True
    """Whether the field is where ``pointseg-predict`` writes classes, if it has written the file."""
    keys: frozenset[str] = frozenset()
    """All fields of labels that the file has, as names are compared."""
    thinned_from: int | None = None
    """Points of the file, of which these are some; None: they are all."""

    @property
    def points(self) -> int:
        """Points of the file."""
        return len(self.values) if self.thinned_from is None else self.thinned_from

    @property
    def is_codes(self) -> bool:
        """Whether its field is one of ASPRS codes."""
        return key_of(self.field) in (CLASSIFICATION, FORMER)


def read_labels(
    path: Path, field: str | None, columns: tuple[str, ...] | None, *, option: str, is_ours: bool
) -> FileLabels:
    """Read the labels of a cloud, or of a file of labels alone.

    Args:
        path: the file.
        field: of the labels; None: the only one that is filled, or of several that differ that of ``pointseg-predict``.
        columns: names of the columns of text and ``.bin`` files.
        option: that names the field, for messages.
        is_ours: whether ``pointseg-predict`` has written it.

    Raises:
        CloudFileError: as ``read_cloud``.
        ScoreError: no labels, several that differ, or labels that are no whole numbers.
    """
    if path.name.lower().endswith(LABEL_SUFFIXES) and not path.is_dir():
        return FileLabels(path, "label", bare_labels(path), None)
    return labels_of(path, read_columns(path, columns), field, option=option, is_ours=is_ours)


def labels_of(
    path: Path,
    columns: Mapping[str, NDArray[Any]],
    field: str | None,
    *,
    option: str,
    is_ours: bool,
) -> FileLabels:
    """As ``read_labels``, of columns that were read, or of some rows of them.

    Raises:
        CloudFileError: no positions.
        ScoreError: as ``read_labels``.
    """
    found = fields_in(path, columns)
    by_key = {key_of(name): name for name in found.rest}
    if field is None:
        field = _chosen(path, found.rest, by_key, option=option, is_ours=is_ours)
    name = field if field in found.rest else by_key.get(key_of(field))
    if name is None:
        raise ScoreError(
            f"{path}: has no field '{field}' ({option}); it has: {', '.join(found.rest)}"
        )
    column = found.rest[name]
    labels = to_labels(column.reshape(-1)) if column.size == len(column) else None
    if labels is None:
        raise ScoreError(
            f"{path}: its field '{name}' does not hold whole numbers, one for each point; give another {option}"
        )
    first = next((by_key[key] for key in SEGMENT if key in by_key), None)
    keys = frozenset(by_key) & frozenset(SEGMENT)
    return FileLabels(path, name, labels, found.xyz, is_result=name == first, keys=keys)


def _chosen(
    path: Path,
    columns: dict[str, NDArray[Any]],
    by_key: dict[str, str],
    *,
    option: str,
    is_ours: bool,
) -> str:
    """The field of the labels; of several, that of ``pointseg-predict`` or one that all others agree with."""
    names = [by_key[key] for key in SEGMENT if key in by_key]
    if not names:
        raise ScoreError(
            f"{path}: has no labels ({', '.join(SEGMENT)}); name their field with {option}; it has: "
            f"{', '.join(columns) or 'positions only'}"
        )
    if is_ours or key_of(names[0]) == SPARE_CLASS_FIELD and option.startswith("--prediction"):
        return names[0]
    filled = [name for name in names if not _is_unfilled(name, columns[name])] or names[:1]
    if any(not np.array_equal(columns[name], columns[filled[0]]) for name in filled[1:]):
        raise ScoreError(
            f"{path}: has labels in several fields that differ ({', '.join(filled)}); say which with {option}"
        )
    return filled[0]


def _is_unfilled(name: str, column: NDArray[Any]) -> bool:
    """Whether nobody wrote into a field; all points may well be of one class. 1 is ASPRS's "unclassified"."""
    empty = (0, -1, 1) if key_of(name) == "classification" else (0, -1)
    return any(bool((column == value).all()) for value in empty)


def bare_labels(path: Path) -> NDArray[np.int32]:
    """(N,) labels of a file that holds nothing else, one of ``LABEL_SUFFIXES``.

    Raises:
        CloudFileError: it cannot be read, or holds something else.
    """
    try:
        if path.name.lower().endswith(".labels"):
            found = np.loadtxt(path, np.int64, comments=None, ndmin=1, encoding="latin-1")
            labels = to_labels(found) if found.ndim == 1 else None
            if labels is None:
                raise CloudFileError(path, "must hold one whole number in each line")
            return labels
        return read_label(path)
    except ValueError as error:
        raise CloudFileError(path, f"must hold one whole number in each line: {error}") from error
    except OSError as error:
        raise CloudFileError(path, f"could not be read: {error.strerror or error}") from error
