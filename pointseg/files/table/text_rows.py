"""Rows of points as lines of text: numbers between blanks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from io import BufferedReader, BufferedWriter
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.table.errors import CloudFileError, numpy_reason
from pointseg.files.table.rows import require_bytes


def parse_rows(
    path: Path,
    stream: BufferedReader,
    count: int,
    dtype: np.dtype[Any],
    *,
    what: str,
    either_sign: Collection[str] = (),
) -> NDArray[Any]:
    """Read ``count`` lines of numbers between blanks; empty lines do not count.

    Args:
        path: the file, for messages.
        stream: the file, before the first line to read.
        count: how many lines.
        dtype: of the rows; its columns may hold several values each.
        what: what a row is, for messages.
        either_sign: columns of 32 bits whose values may be written as signed or unsigned numbers.

    Raises:
        CloudFileError: fewer lines, another number of columns, no numbers, or values that an integer
            type cannot hold.
    """
    rows = np.empty(0, dtype)
    widths = [int(np.prod(dtype[name].shape)) for name in dtype.names or ()]
    if count == 0 or not widths:
        return rows
    # at least a digit and a blank for each number
    require_bytes(path, stream, count * (2 * sum(widths) - 1), f"{count} rows of '{what}'")
    lines = filled_lines(stream)
    first = next(lines, b"")
    if len(first.split()) != sum(widths):
        raise CloudFileError(
            path,
            f"the first row of '{what}' has {len(first.split())} numbers, not {sum(widths)}",
        )
    try:
        rest = islice(lines, count - 1)
        table = np.loadtxt(chain([first], rest), comments=None, ndmin=2, encoding="latin-1")
    except ValueError as error:
        raise CloudFileError(
            path, f"the rows of '{what}' are malformed: {numpy_reason(error)}"
        ) from error
    if len(table) < count:
        raise CloudFileError(
            path, f"is cut off: {len(table)} of {count} rows of '{what}' are there"
        )
    rows, at = np.empty(count, dtype), 0
    for name, width in zip(dtype.names or (), widths, strict=True):
        values, kind = table[:, at : at + width], dtype[name].base
        at += width
        if name in either_sign and kind.kind != "f":
            values = np.where(values < 0, values + 2.0**32, values).astype(np.uint32).view(kind)
        elif kind.kind != "f" and not _fits(values, kind):
            raise CloudFileError(
                path, f"'{name}' of '{what}' holds a value that is not {kind.name}, its type"
            )
        with np.errstate(over="ignore", under="ignore"):  # beyond float32: infinite
            rows[name] = values.reshape(rows[name].shape)
    return rows


def copy_rows(
    old: BufferedReader,
    new: BufferedWriter,
    places: Mapping[str, int],
    values: Mapping[str, NDArray[Any]],
) -> None:
    """Copy the next lines of numbers between blanks, with some columns replaced or appended.

    Args:
        old: before the first line; afterwards before the line that follows the last.
        new: the file that is written.
        places: where each of the old columns begins.
        values: (n,) values of columns for n filled lines, which are appended if they are not among the old ones.
    """
    count = len(next(iter(values.values())))
    columns = {places[name]: as_texts(v) for name, v in values.items() if name in places}
    appended = [as_texts(v) for name, v in values.items() if name not in places]
    for row, line in enumerate(islice(filled_lines(old), count)):
        words = line.split()
        end = line[len(line.rstrip(b"\r\n")) :] or b"\n"
        for column, texts in columns.items():
            words[column] = texts[row].encode()
        body = b" ".join(words) if columns else line.rstrip()
        new.write(body + b"".join(b" " + texts[row].encode() for texts in appended) + end)


def filled_lines(stream: BufferedReader) -> Iterator[bytes]:
    """The lines that are not empty."""
    return (line for line in stream if line.strip())


def as_texts(values: NDArray[Any]) -> list[str]:
    """Numbers as text that reads back as the same number."""
    return [str(value) for value in values.tolist()]


def _fits(values: NDArray[np.float64], kind: np.dtype[Any]) -> bool:
    limits = np.iinfo(kind)
    inside = (values >= limits.min) & (values <= limits.max)  # NaN compares False
    return bool((inside & (np.floor(values) == values)).all())
