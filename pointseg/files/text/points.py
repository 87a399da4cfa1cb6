"""The numbers of all lines of a cloud of text that hold points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.table.errors import CloudFileError, numpy_reason
from pointseg.files.text.encoding import open_text
from pointseg.files.text.layout import Layout
from pointseg.files.text.numbers import cleaned


def table_of(path: Path, layout: Layout, first: int | None = None) -> NDArray[np.float64]:
    """(N, C) all points, or the first ones."""
    if layout.is_empty:
        return np.empty((0, layout.columns))

    def lines(clean: bool) -> Iterator[str]:
        with open_text(path) as stream:
            for number, line in enumerate(stream):
                if layout.is_point(number, line):
                    text = line.replace(",", ".") if layout.has_decimal_commas else line
                    text = cleaned(text) if clean else text
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
            raise CloudFileError(path, f"is malformed: {numpy_reason(error)}") from error
