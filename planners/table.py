"""Tables of a plan for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

TARGET = "dinomed3d_memory_target_gib"
"""A plan's configuration says under this key which memory it was sized for."""
DECISIONS = "dinomed3d_decisions"
"""And under this one what was decided, with the reasons."""
WIDTH = 110
"""Characters of a line."""


def decision_table(rows: Sequence[Mapping[str, str]]) -> str:
    """What, value and why, one line each; long reasons go on below.

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


def decision_tables(title: str, told: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    """The decisions of several configurations, what they all share only once.

    Args:
        title: of the whole.
        told: rows as `decision_table` takes them, by configuration.
    """
    first = next(iter(told.values()), [])
    shared = [row for row in first if all(row in rows for rows in told.values())]
    blocks = []
    if shared and len(told) > 1:
        blocks.append(f"{title}: {', '.join(told)}\n{decision_table(shared)}")
    for name, rows in told.items():
        own = [row for row in rows if len(told) == 1 or row not in shared]
        if own:
            blocks.append(f"{title}: {name}\n{decision_table(own)}")
    return "\n\n".join(blocks)


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table: the first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return "\n".join(
        "  "
        + "  ".join(
            f"{cell:<{w}}" if i == 0 else f"{cell:>{w}}"
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    )
