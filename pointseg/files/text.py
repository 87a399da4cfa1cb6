"""Clouds as text: a point per line, numbers between blanks, tabs, commas or semicolons, names optional."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from pointseg.files.columns import COLOR, columns_of, key_of, names_labels
from pointseg.files.errors import CloudFileError, told_of_table
from pointseg.files.given_names import given_names
from pointseg.files.labels import Labels
from pointseg.files.noted import NotedColumns
from pointseg.files.rows import as_texts
from pointseg.scene import Scene

COMMENTS = ("#", "//")
LABELS = ".labels"
"""Ending of a file of labels next to one of text."""
DELIMITERS = (";", ",", "\t")
TITLE_LIMIT = 20
"""Lines without numbers before the points; more are a letter, not a cloud."""
_NO_NUMBER = re.compile(r"-?nan\([^)\s]*\)|[-+]?1\.#[A-Z]+\d*|\b(?:NULL|NA|N/A)\b", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[-+]?\d*(,\d+)?([eE][-+]?\d+)?")
_FORTRAN = re.compile(r"(\d\.?)[dD]([-+]?\d)")
LINE_LIMIT = 100_000  # characters; a file with longer lines is refused


@dataclass(frozen=True)
class Layout:
    """How the lines of a file are to be read."""

    delimiter: str | None
    """What separates values; None: blanks or tabs."""
    header: int | None
    """The number of the line that names the columns; None: no line does."""
    names: tuple[str, ...]
    """The names of the columns; empty where the file has none."""
    columns: int
    """How many values each line has."""
    is_empty: bool
    """Whether the file has no points."""
    skipped: frozenset[int] = frozenset()
    """Numbers of lines that hold a title or the number of points: CloudCompare and Leica write them first."""
    count: int | None = None
    """The number of points that stands before the first of them; None: none does."""
    has_decimal_commas: bool = False
    """Whether numbers have commas in place of points."""

    def is_point(self, number: int, line: str) -> bool:
        """Whether a line holds a point."""
        if self.count is not None and line.strip().isdecimal():
            return False  # further scans of a .pts file have numbers of points, too
        return number != self.header and number not in self.skipped and _is_data(line)


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
    layout = _layout(path)
    table = _table(path, layout, first)
    names = _names(path, layout, table, columns)
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
        with _open(path) as stream:
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
    layout = _layout(path)
    given = given_names(path, layout.columns, layout.names, columns)
    pairs = zip(layout.names, given or layout.names, strict=False)
    return tuple(old for old, new in pairs if key_of(old) != key_of(new))


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
    source: Path, target: Path, labels: Labels, columns: Sequence[str] | None = None
) -> None:
    """Copy a cloud of text with a class, and what else labels have, at the end of each line; other text stays as it is.

    A file without names gets a line of names, those of ``columns`` if given.
    """
    layout = _layout(source)
    table = _table(source, layout)
    names = _names(source, layout, table, columns)
    labels = labels.checked(source, len(table))
    taken = (*names, *layout.names)  # which may have been replaced
    values = _painted(names, table, labels) | {labels.field_in(source, taken): labels.whole}
    values.update(zip(labels.added_names(taken), labels.added_values(), strict=True))
    texts = {name: as_texts(column) for name, column in values.items()}
    if layout.has_decimal_commas:
        texts = {name: [text.replace(".", ",") for text in new] for name, new in texts.items()}
    replaced = {names.index(name): new for name, new in texts.items() if name in names}
    added = {name: new for name, new in texts.items() if name not in names}
    delimiter = layout.delimiter or " "
    encoding, errors = _encoding(source, copy=True)
    with new_file(target) as part, _open(source) as old, \
            open(part, "w", encoding=encoding, errors=errors, newline="") as stream:  # fmt: skip
        row = 0
        for number, line in enumerate(old):
            body = line.rstrip().rstrip(",;")
            end = "\r\n" if line.endswith("\r\n") else "\n"
            if number == layout.header:
                stream.write(delimiter.join([body, *added]) + end)
                continue
            if not layout.is_point(number, line):
                stream.write(line)
                continue
            if row == 0 and not layout.names:
                stream.write(_header_line(target, [*names, *added], delimiter) + end)
            if replaced:
                words = _split(body, layout.delimiter)
                for column, new in replaced.items():
                    words[column] = new[row]
                body = delimiter.join(words)
            stream.write(delimiter.join([body, *(new[row] for new in added.values())]) + end)
            row += 1


def _layout(path: Path) -> Layout:
    """Delimiter, names and number of columns from the lines up to the first point."""
    comment, first = (-1, ""), None
    titles: list[tuple[int, str]] = []
    counts: list[tuple[int, str]] = []
    names_follow = False  # the number of points, in one line
    with _open(path) as stream:
        for number, line in enumerate(_decoded(path, stream)):
            if len(line) > LINE_LIMIT:
                raise CloudFileError(path, f"line {number + 1} is too long for a cloud of text")
            text = line.strip()
            if text.startswith(COMMENTS):
                comment = (number, text.lstrip("#/").strip())
            elif text and _is_numbers(text):
                first = text
                if counts or not text.isdecimal():
                    break
                counts.append((number, text))  # of points, if the next line holds more numbers
            elif text and (len(titles) == TITLE_LIMIT or names_follow):
                raise CloudFileError(path, f"line {number + 1} holds no numbers: {text[:60]!r}")
            elif text:
                titles.append((number, text))
                names_follow = bool(counts)
    if first is not None and first.isdecimal():
        if int(first):
            counts = []
        else:
            first = None  # no points, as their number says
    *others, header = titles or [(-1, "")]
    skipped = frozenset(number for number, _ in (*counts, *others))
    names_at, named = header if header[1] else comment
    sample = named if first is None else first
    delimiter = next((d for d in DELIMITERS if d in sample), None)
    if first is not None and delimiter == "\t" and len(first.split()) != len(first.split("\t")):
        delimiter = None  # tabs between names, tabs or blanks between numbers
    commas = first is not None and _has_decimal_commas(first)
    if first is not None and commas and ";" not in first:
        delimiter = "\t" if len(first.split()) == len(first.split("\t")) else None
    columns = len(_split(sample, delimiter)) if sample else 3
    names = tuple(word.strip("\"' ") for word in _split(named, delimiter)) if named else ()
    if named and len(names) != columns:  # "# x y z" above "1,2,3"
        names = tuple(word for word in re.split(r"[\s,;]+", named) if word)
    fits = len(names) == columns and len(set(names)) == len(names)
    if header[1] and not fits:
        problem = f"names {len(names)} columns" if len(names) != columns else "names a column twice"
        raise CloudFileError(
            path, f"line {names_at + 1} {problem}, the first point has {columns} values"
        )
    if not fits or not (header[1] or {"x", "y", "z"} <= {name.lower() for name in names}):
        names = ()
    line_of_names = names_at if names else None
    count = None if not counts else int(counts[0][1])
    return Layout(delimiter, line_of_names, names, columns, first is None, skipped, count, commas)


def _decoded(path: Path, stream: Iterator[str]) -> Iterator[str]:
    try:
        yield from stream
    except UnicodeDecodeError as error:
        raise CloudFileError(path, f"is no text: {error}") from error


def _table(path: Path, layout: Layout, first: int | None = None) -> NDArray[np.float64]:
    """(N, C) all points, or the first ones."""
    if layout.is_empty:
        return np.empty((0, layout.columns))

    def lines(clean: bool) -> Iterator[str]:
        with _open(path) as stream:
            for number, line in enumerate(stream):
                if layout.is_point(number, line):
                    text = line.replace(",", ".") if layout.has_decimal_commas else line
                    text = _cleaned(text) if clean else text
                    yield text.strip().rstrip(layout.delimiter) if layout.delimiter else text

    def table(clean: bool) -> NDArray[np.float64]:
        how: dict[str, Any] = {"delimiter": layout.delimiter, "comments": None, "ndmin": 2}
        return np.loadtxt(lines(clean), max_rows=first, **how)

    try:
        return table(clean=False)
    except ValueError as error:
        try:
            return table(clean=True)
        except ValueError:
            raise CloudFileError(path, f"is malformed: {told_of_table(error)}") from error


def _cleaned(line: str) -> str:
    """Numbers as other programs write them: quoted, Fortran's 1.5D+03, and Windows' words for NaN."""
    line = line.replace('"', "")
    return _FORTRAN.sub(r"\1e\2", _NO_NUMBER.sub("nan", line))


def _names(
    path: Path, layout: Layout, table: NDArray[np.float64], columns: Sequence[str] | None
) -> list[str]:
    given = None
    if columns is not None:
        given = given_names(path, table.shape[1], layout.names, columns)
    return given or list(layout.names) or _guessed_names(path, table)


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
    """Normal, color or neither: what three columns seem to be."""
    if len(values) == 0 or not np.isfinite(values).all():
        return "neither"
    length = np.linalg.norm(values, axis=1)
    if (np.abs(length - 1) < 0.02).mean() > 0.9:
        return "normal"
    whole = bool((np.floor(values) == values).all())
    fits = values.min() >= 0 and (values.max() <= 1 or (whole and values.max() <= 255))
    return "color" if fits else "neither"


def _painted(
    names: Sequence[str], table: NDArray[np.float64], labels: Labels
) -> dict[str, NDArray[Any]]:
    """Columns of colour by name, if labels have colours, in the range of those that they replace."""
    if labels.colors is None:
        return {}
    painted, lower = labels.paint(labels.whole), [name.lower() for name in names]
    keys = next((c for c in COLOR if all(name in lower for name in c)), None)
    if keys is None:
        return dict(zip(COLOR[0], painted.T, strict=True))
    columns = [lower.index(name) for name in keys]
    is_unit = table[:, columns].max(initial=0) <= 1
    new = np.round(painted / 255, 4) if is_unit else painted
    return {names[column]: new[:, i] for i, column in enumerate(columns)}


def _open(path: Path) -> Any:
    encoding, errors = _encoding(path)
    return open(path, encoding=encoding, errors=errors, newline="")


def _encoding(path: Path, *, copy: bool = False) -> tuple[str, str]:
    """Encoding, and what to do with other bytes: UTF-16 where a mark says so, otherwise UTF-8.

    Bytes that are not UTF-8 (names in comments) are carried along as they are.
    """
    with open(path, "rb") as stream:
        if stream.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            return "utf-16", "strict"
    return "utf-8" if copy else "utf-8-sig", "surrogateescape"


def _is_data(line: str) -> bool:
    text = line.strip()
    return bool(text) and not text.startswith(COMMENTS)


def _is_numbers(text: str) -> bool:
    try:
        float(re.split(r"[\s,;]+", _cleaned(text))[0])
    except ValueError:
        return False
    return True


def _has_decimal_commas(point: str) -> bool:
    """Whether the numbers of a line have commas: semicolons, tabs or blanks separate them then."""
    words = point.rstrip(";").split(";") if ";" in point else point.split()
    is_number = all(word.strip() and _DECIMAL_COMMA.fullmatch(word.strip()) for word in words)
    return "," in point and len(words) >= 3 and is_number


def _split(text: str, delimiter: str | None) -> list[str]:
    words = text.split(delimiter) if delimiter is None else text.rstrip(delimiter).split(delimiter)
    return [word.strip() for word in words]


def _header_line(path: Path, names: Sequence[str], delimiter: str) -> str:
    mark = "" if path.suffix.lower() == ".csv" else "# "
    return mark + delimiter.join(names)
