"""Numbers in lines of text: parsed, and copied with further numbers behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader, BufferedWriter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.errors import CloudFileError


def parse_rows(
    path: Path, stream: BufferedReader, count: int, *, columns: int, what: str
) -> NDArray[np.float64]:
    """Read lines of numbers between blanks; empty lines do not count.

    Args:
        path: the file, for messages.
        stream: it, before the first line to read.
        count: how many lines.
        columns: how many numbers each.
        what: what a line is, for messages.

    Returns:
        (count, columns) values.

    Raises:
        CloudFileError: fewer lines, another number of columns, or what is no number.
    """
    if count == 0 or columns == 0:
        return np.empty((count, columns))
    left = path.stat().st_size - stream.tell()
    if left < count * (2 * columns - 1):  # a digit and a blank each; no memory is asked for in vain
        raise CloudFileError(
            path, f"is cut off: {count} rows of '{what}' do not fit into the {left} bytes left"
        )
    lines = filled_lines(stream)
    first = next(lines, b"")
    found = len(first.split())
    if found != columns:
        raise CloudFileError(
            path, f"the first row of '{what}' has {found} numbers, its header says {columns}"
        )
    try:
        rest = islice(lines, count - 1)
        table = np.loadtxt(_chain(first, rest), comments=None, ndmin=2, encoding="latin-1")
    except ValueError as error:
        raise CloudFileError(path, f"the rows of '{what}' are malformed: {error}") from error
    if len(table) < count:
        raise CloudFileError(
            path, f"is cut off: {len(table)} of {count} rows of '{what}' are there"
        )
    return table


def filled_lines(stream: BufferedReader) -> Iterator[bytes]:
    """The lines that are not empty."""
    return (line for line in stream if line.strip())


def copy_rows(
    old: BufferedReader,
    new: BufferedWriter,
    count: int,
    *,
    replaced: Mapping[int, Sequence[str]],
    added: Sequence[Sequence[str]],
) -> None:
    """Copy lines of numbers between blanks, with some columns replaced and some added.

    Args:
        old: before the first line; afterwards before the line that follows the last.
        new: what is written to.
        count: how many filled lines.
        replaced: by column number, (count,) texts.
        added: (count,) texts each, one per further column.
    """
    for row, line in enumerate(islice(filled_lines(old), count)):
        body = line.rstrip()
        end = line[len(line.rstrip(b"\r\n")) :] or b"\n"
        if replaced:
            words = body.split()
            for column, texts in replaced.items():
                words[column] = texts[row].encode()
            body = b" ".join(words)
        new.write(body + b"".join(b" " + texts[row].encode() for texts in added) + end)


def as_texts(values: NDArray[Any]) -> list[str]:
    """Numbers as text that reads back as the same number."""
    return [str(value) for value in values.tolist()]


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
