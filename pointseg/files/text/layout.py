"""How the lines of a cloud of text are to be read: what separates numbers, where names, titles and counts stand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pointseg.files.table.errors import CloudFileError
from pointseg.files.text.encoding import open_text
from pointseg.files.text.numbers import begins_with_number, has_decimal_commas_in, split_line

COMMENTS = ("#", "//")
DELIMITERS = (";", ",", "\t")
TITLE_LIMIT = 20
"""Lines without numbers before the points; more are a letter, not a cloud."""
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


def layout_of(path: Path) -> Layout:
    """Delimiter, names and number of columns from the lines up to the first point."""
    comment, first = (-1, ""), None
    titles: list[tuple[int, str]] = []
    counts: list[tuple[int, str]] = []
    names_follow = False  # the number of points, in one line
    with open_text(path) as stream:
        for number, line in enumerate(_decoded(path, stream)):
            if len(line) > LINE_LIMIT:
                raise CloudFileError(path, f"line {number + 1} is too long for a cloud of text")
            text = line.strip()
            if text.startswith(COMMENTS):
                comment = (number, text.lstrip("#/").strip())
            elif text and begins_with_number(text):
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
    commas = first is not None and has_decimal_commas_in(first)
    if first is not None and commas and ";" not in first:
        delimiter = "\t" if len(first.split()) == len(first.split("\t")) else None
    columns = len(split_line(sample, delimiter)) if sample else 3
    names = tuple(word.strip("\"' ") for word in split_line(named, delimiter)) if named else ()
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


def _is_data(line: str) -> bool:
    text = line.strip()
    return bool(text) and not text.startswith(COMMENTS)
