"""Tables as RESULTS.md has them."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: str, rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; `header` names the columns, with | between."""
    columns = header.split("|")
    return "\n".join(row(cells) for cells in (columns, ["---"] * len(columns), *rows))


def row(cells: Sequence[object]) -> str:
    """One row of it."""
    return f"| {' | '.join(map(str, cells))} |"
