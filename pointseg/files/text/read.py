"""Clouds as text: a point per line, numbers between blanks, tabs, commas or semicolons, names optional."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.columns.given_names import given_names
from pointseg.files.columns.names import key_of, names_labels
from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.noted_columns import NotedColumns
from pointseg.files.text.encoding import open_text
from pointseg.files.text.guessed_names import guessed_names
from pointseg.files.text.layout import Layout, layout_of
from pointseg.files.text.points import table_of

LABELS = ".labels"
"""Ending of a file of labels next to one of text."""


def read_text(
    path: Path, columns: Sequence[str] | None = None, first: int | None = None
) -> dict[str, NDArray[Any]]:
    """The columns of a cloud of text, named by ``columns`` if given and fitting: see ``given_names``.

    Of the ``first`` points, if that is given.

    Otherwise their names are in the first line, or in a comment (``#`` or ``//``) before the first point.
    Without names the first three columns are x, y and z; further ones are recognised by their values:
    three of unit length are a normal, three of 0 to 255 a colour, one between position and colour, or
    alone behind the position, an intensity. The rest is called column7 and so on.
    """
    layout = layout_of(path)
    table = table_of(path, layout, first)
    names = names_of(path, layout, table, columns)
    found = {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(names)}
    notes = () if first is not None else _notes(path, layout, len(table))
    labels = path.with_suffix(LABELS)
    if not labels.is_file():
        return NotedColumns(found, notes)
    if any(names_labels(name) for name in names):
        return NotedColumns(found, (*notes, f"has labels of its own; {labels.name} was not read"))
    own = _labels(path, labels, len(table), is_part=first is not None)
    return NotedColumns({**found, "label": own}, notes)


def _notes(path: Path, layout: Layout, points: int) -> tuple[str, ...]:
    """What the user should know of how a file was read."""
    notes = []
    if layout.has_decimal_commas:
        notes.append("its numbers have decimal commas, which were read as points")
    if layout.count is not None:
        with open_text(path) as stream:
            announced = sum(int(line) for line in stream if line.strip().isdecimal())
        if announced != points:
            notes.append(f"announces {announced} points, but holds {points}: is it cut off?")
    return tuple(notes)


def _labels(path: Path, labels: Path, count: int, *, is_part: bool) -> NDArray[np.int64]:
    """(count,) the labels of Semantic3D: a whole number in each line of a file next to the points."""
    try:
        most = count if is_part else None
        found = np.loadtxt(
            labels, np.int64, comments=None, ndmin=1, max_rows=most, encoding="latin-1"
        )
    except ValueError as error:
        raise CloudFileError(labels, f"must hold a whole number in each line: {error}") from error
    if found.shape != (count,):
        raise CloudFileError(
            labels,
            f"holds {len(found)} labels, {path.name} has {count} points; there must be one for each",
        )
    return found


def replaced_names(path: Path, columns: Sequence[str]) -> tuple[str, ...]:
    """The names in a file that ``columns`` replaces by others; () if there are none.

    Raises:
        CloudFileError: as ``read_text``.
    """
    layout = layout_of(path)
    given = given_names(path, layout.columns, layout.names, columns)
    pairs = zip(layout.names, given or layout.names, strict=False)
    return tuple(old for old, new in pairs if key_of(old) != key_of(new))


def names_of(
    path: Path, layout: Layout, table: NDArray[np.float64], columns: Sequence[str] | None
) -> list[str]:
    """The names of the columns: those given, else the file's own, else those that their values suggest."""
    given = None
    if columns is not None:
        given = given_names(path, table.shape[1], layout.names, columns)
    return given or list(layout.names) or guessed_names(path, table)
