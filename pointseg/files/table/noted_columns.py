"""Columns of a file with what its reader has to say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray


class NotedColumns(dict[str, NDArray[Any]]):
    """(N, ...) columns by name, as readers of files return them."""

    def __init__(self, columns: Mapping[str, NDArray[Any]], notes: tuple[str, ...] = ()) -> None:
        """Columns and sentences for the user."""
        super().__init__(columns)
        self.notes = notes
        """What was left out, and the like."""
