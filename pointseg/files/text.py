"""Clouds as text: a point per line, numbers between blanks, tabs, commas or semicolons, names optional."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from pointseg.files.columns import (
    COLOR,
    checked_segment,
    class_field,
    columns_of,
    names_labels,
    paint,
    scene_of,
)
from pointseg.files.errors import CloudFileError
from pointseg.files.rows import as_texts
from pointseg.scene import Scene

COMMENTS = ("#", "//")
LINE_LIMIT = 100_000  # characters; longer lines are of no cloud


@dataclass(frozen=True)
class Form:
    """How the lines of a file are to be read."""

    delimiter: str | None
    """None: blanks or tabs."""
    decimal_comma: bool
    header: int | None
    """Number of the line that names the columns."""
    names: tuple[str, ...]
    """One for each column; empty where the file names none."""
    columns: int
    is_empty: bool = False
    """No points at all."""


def read_text(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    strength_max: float | None = None,
) -> Scene:
    """A cloud from text.

    The names of the columns stand in the first line, or in a comment (``#`` or ``//``) before the
    first point. Without names the first three columns are x, y and z; further ones are recognised by
    their values: three of unit length are a normal, three of 0 to 255 a colour, one between position
    and colour, or alone behind the position, an intensity. The rest is called column7 and so on.

    Args:
        path: the file.
        columns: names instead of those, one for each column.
        strength_max: the intensity that becomes 1; None: it is guessed.

    Raises:
        CloudFileError: no numbers, lines of different lengths, another number of names.
    """
    form = _form(path)
    table = _table(path, form)
    names = _names(path, form, table, columns)
    named = {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(names)}
    return scene_of(path, named, name=path.stem, strength_max=strength_max)


def fitting_columns(path: Path, columns: Sequence[str]) -> Sequence[str] | None:
    """Which of the columns of other files those of this one are, if it does not name them itself.

    Args:
        path: a file of text.
        columns: of the clouds that a model was trained on; this one may lack their labels.

    Returns:
        Names, one for each column; None where the file has its own.

    Raises:
        CloudFileError: as ``read_text``; another number of columns.
    """
    form = _form(path)
    bare = [name for name in columns if not names_labels(name)]
    if form.names:
        return None
    for names in (columns, bare):
        if len(names) == form.columns:
            return names
    raise CloudFileError(
        path,
        f"has {form.columns} columns without names, the model's training clouds had "
        f"{len(columns)} ({', '.join(columns)}); name those of this file in its first line",
    )


def write_text(path: Path, scene: Scene) -> None:
    """A scene as text with a line of names: commas in ``.csv``, otherwise blanks and ``#``."""
    columns = columns_of(scene)
    delimiter = "," if path.suffix.lower() == ".csv" else " "
    texts = [as_texts(values) for values in columns.values()]
    names = [re.sub(r"\s", "_", name) for name in columns]
    with new_file(path) as part, open(part, "w", encoding="utf-8", newline="\n") as stream:
        stream.write(_header_line(path, names, delimiter) + "\n")
        stream.writelines(delimiter.join(row) + "\n" for row in zip(*texts, strict=True))


def label_text(
    source: Path,
    target: Path,
    segment: NDArray[Any],
    *,
    colors: NDArray[np.uint8] | None = None,
    field: str | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    """Copy a cloud of text with a class behind each line; all other text stays as it is.

    A file without names gets a line of names, so that the class can be told from the rest.

    Args:
        source: the file that was read.
        target: the file to be.
        segment: (N,) classes.
        colors: (K, 3) colours of the classes; given, they replace those of the points.
        field: name of the column for the classes; see ``class_field``.
        columns: as for ``read_text``.

    Raises:
        CloudFileError: as ``read_text``; ``segment`` does not fit.
    """
    form = _form(source)
    table = _table(source, form)
    names = _names(source, form, table, columns)
    segment = checked_segment(source, segment, len(table))
    values: dict[str, NDArray[Any]] = {}
    if colors is not None:
        values = _painted(names, table, paint(segment, colors))
    values[class_field(source, names, field)] = segment
    texts = {name: as_texts(column) for name, column in values.items()}
    replaced = {names.index(name): new for name, new in texts.items() if name in names}
    added = {name: new for name, new in texts.items() if name not in names}
    delimiter = form.delimiter or " "
    with new_file(target) as part, _open(source) as old, \
            open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:  # fmt: skip
        row = 0
        for number, line in enumerate(old):
            body, end = _split_end(line)
            if number == form.header:
                stream.write(delimiter.join([body, *added]) + end)
                continue
            if not _is_data(line):
                stream.write(line)
                continue
            if row == 0 and not form.names:
                stream.write(_header_line(target, [*names, *added], delimiter) + end)
            if replaced:
                words = _split(body, form.delimiter)
                for column, new in replaced.items():
                    words[column] = new[row]
                body = delimiter.join(words)
            stream.write(delimiter.join([body, *(new[row] for new in added.values())]) + end)
            row += 1


def _form(path: Path) -> Form:
    """Delimiter, names and number of columns from the lines up to the first point."""
    comment: tuple[int, str] | None = None
    header: tuple[int, str] | None = None
    with _open(path) as stream:
        for number, line in enumerate(stream):
            if len(line) > LINE_LIMIT:
                raise CloudFileError(
                    path, f"line {number + 1} is too long: this is no cloud of text"
                )
            text = line.strip()
            if text.startswith(COMMENTS):
                comment = (number, text.lstrip("#/").strip())
            elif text and _is_numbers(text):
                delimiter = next((d for d in (";", ",", "\t") if d in text), None)
                decimal_comma = delimiter == ";" and "," in text
                if delimiter == "\t":  # tabs between names, tabs or blanks between numbers
                    delimiter = None if len(text.split()) != len(text.split("\t")) else "\t"
                columns = len(_split(text, delimiter))
                return _named(path, header, comment, delimiter, decimal_comma, columns)
            elif text and header is None:
                header = (number, text)
            elif text:
                raise CloudFileError(path, f"line {number + 1} holds no numbers: {text[:60]!r}")
    named = comment if header is None else header
    delimiter = next((d for d in (";", ",", "\t") if named is not None and d in named[1]), None)
    columns = 3 if named is None else len(_split(named[1], delimiter))
    return replace(
        _named(path, header, comment, delimiter, False, columns), columns=columns, is_empty=True
    )


def _named(
    path: Path,
    header: tuple[int, str] | None,
    comment: tuple[int, str] | None,
    delimiter: str | None,
    decimal_comma: bool,
    columns: int,
) -> Form:
    for is_comment, found in ((False, header), (True, comment)):
        if found is None:
            continue
        names = tuple(word.strip("\"' ") for word in _split(found[1], delimiter))
        if len(names) != columns:  # "# x y z" above "1,2,3"
            names = tuple(word for word in re.split(r"[\s,;]+", found[1]) if word)
        distinct = len(set(names)) == len(names)
        of_points = not is_comment or {"x", "y", "z"} <= {name.lower() for name in names}
        if len(names) == columns and distinct and of_points:
            return Form(delimiter, decimal_comma, found[0], names, columns)
        if not is_comment:
            problem = f"names {len(names)} columns" if distinct else "names a column twice"
            raise CloudFileError(
                path, f"line {found[0] + 1} {problem}, the first point has {columns} values"
            )
    return Form(delimiter, decimal_comma, None, (), columns)


def _table(path: Path, form: Form) -> NDArray[np.float64]:
    """(N, C) all points."""
    if form.is_empty:
        return np.empty((0, form.columns))

    def lines() -> Iterator[str]:
        for number, line in enumerate(stream):
            if number != form.header and _is_data(line):
                text = line.strip().rstrip(form.delimiter) if form.delimiter else line
                yield text.replace(",", ".") if form.decimal_comma else text

    with _open(path) as stream:
        try:
            return np.loadtxt(lines(), delimiter=form.delimiter, comments=None, ndmin=2)
        except ValueError as error:
            raise CloudFileError(path, f"is malformed: {error}") from error


def _names(
    path: Path, form: Form, table: NDArray[np.float64], columns: Sequence[str] | None
) -> list[str]:
    if columns is not None:
        if len(columns) != table.shape[1] or len(set(columns)) != len(columns):
            raise CloudFileError(
                path, f"has {table.shape[1]} columns, the names given are {', '.join(columns)}"
            )
        return list(columns)
    return list(form.names) or _guessed_names(path, table)


def _guessed_names(path: Path, table: NDArray[np.float64]) -> list[str]:
    width = table.shape[1]
    if width < 3:
        raise CloudFileError(path, f"has {width} numbers a line; a point needs at least x, y and z")
    names = [*"xyz", *(f"column{number}" for number in range(4, width + 1))]
    if width == 4:
        names[3] = "intensity"
    at, free = 3, {"color", "normal"}
    while at + 3 <= width and free:
        kind = _kind(table[:, at : at + 3])
        if kind in free:
            names[at : at + 3] = ["red", "green", "blue"] if kind == "color" else ["nx", "ny", "nz"]
            free.discard(kind)
            if at == 4:
                names[3] = "intensity"
            at += 3
        elif at == 3:
            at += 1
        else:
            break
    return names


def _kind(values: NDArray[np.float64]) -> str:
    """Normal, color or neither: what three columns look like."""
    if len(values) == 0 or not np.isfinite(values).all():
        return "neither"
    length = np.linalg.norm(values, axis=1)
    if (np.abs(length - 1) < 0.02).mean() > 0.9:
        return "normal"
    whole = bool((np.floor(values) == values).all())
    fits = values.min() >= 0 and (values.max() <= 1 or (whole and values.max() <= 255))
    return "color" if fits else "neither"


def _painted(
    names: Sequence[str], table: NDArray[np.float64], painted: NDArray[np.uint8]
) -> dict[str, NDArray[Any]]:
    """Columns of colour by name, in the range of those that they replace."""
    lower = [name.lower() for name in names]
    keys = next((c for c in COLOR if all(name in lower for name in c)), None)
    if keys is None:
        return dict(zip(COLOR[0], painted.T, strict=True))
    columns = [lower.index(name) for name in keys]
    is_unit = table[:, columns].max(initial=0) <= 1
    new = np.round(painted / 255, 4) if is_unit else painted
    return {names[column]: new[:, i] for i, column in enumerate(columns)}


def _open(path: Path) -> Any:
    # Bytes that are not UTF-8 (names in comments) are carried along as they are.
    return open(path, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _is_data(line: str) -> bool:
    text = line.strip()
    return bool(text) and not text.startswith(COMMENTS)


def _is_numbers(text: str) -> bool:
    first = re.split(r"[\s,;]+", text)[0]
    try:
        float(first)
    except ValueError:
        return False
    return True


def _split(text: str, delimiter: str | None) -> list[str]:
    words = text.split(delimiter) if delimiter is None else text.rstrip(delimiter).split(delimiter)
    return [word.strip() for word in words]


def _split_end(line: str) -> tuple[str, str]:
    body = line.rstrip()
    end = "\r\n" if line.endswith("\r\n") else "\n"
    return body.rstrip(",;"), end


def _header_line(path: Path, names: Sequence[str], delimiter: str) -> str:
    mark = "" if path.suffix.lower() == ".csv" else "# "
    return mark + delimiter.join(names)
