"""Text tables of a plan."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

WIDTH = 110
"""Characters per line."""


def decision_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Setting, value and reason, one line each; long reasons are wrapped.

    Args:
        rows: with keys "what", "value", "why".
    """
    what = max(len(row["what"]) for row in rows)
    value = max(len(row["value"]) for row in rows)
    lines = []
    for row in rows:
        left = f"  {row['what']:<{what}}  {row['value']:<{value}}  "
        why = textwrap.wrap(row["why"], max(40, WIDTH - len(left))) or [""]
        lines.append((left + why[0]).rstrip())
        lines += [" " * len(left) + more for more in why[1:]]
    return "\n".join(lines)


def decision_tables(title: str, configurations: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    """The decisions of several configurations; those that all share only once.

    Args:
        title: of the table.
        configurations: rows of `decision_table`, by configuration.
    """
    first = next(iter(configurations.values()), [])
    shared = [row for row in first if all(row in rows for rows in configurations.values())]
    blocks = []
    if shared and len(configurations) > 1:
        blocks.append(f"{title}: {', '.join(configurations)}\n{decision_table(shared)}")
    for name, rows in configurations.items():
        own = [row for row in rows if len(configurations) == 1 or row not in shared]
        if own:
            blocks.append(f"{title}: {name}\n{decision_table(own)}")
    return "\n\n".join(blocks)


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table: first column left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return "\n".join(
        "  "
        + "  ".join(
            f"{cell:<{w}}" if i == 0 else f"{cell:>{w}}"
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    )
