"""What became of the files of a prediction, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pointseg.prediction.predict import Prediction

SEEN = 3
"""The column that stands only where a model reads images."""


def table(results: Sequence[Prediction]) -> str:
    """One line per file: points, seconds, the share that images show if any were asked for, frequent classes."""
    rows = [("file", "points", "seconds", "seen", "classes")]
    for result in results:
        if result.status == "failed":
            rows.append((Path(result.source).name, "-", "-", "-", "failed"))
            continue
        counts = sorted((result.classes or {}).items(), key=lambda item: -item[1])
        named = max(1, sum(count for _, count in counts))
        told = ", ".join(f"{name} {100 * count / named:.0f} %" for name, count in counts[:4])
        seconds = "kept" if result.status == "kept" else f"{result.seconds:.1f}"
        seen = "-" if result.seen is None else f"{100 * result.seen:.0f} %"
        rows.append((Path(result.target).name, f"{result.points:,}", seconds, seen, told))
    columns = list(zip(*rows, strict=True))
    if all(result.seen is None for result in results):
        del columns[SEEN]
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for first, *numbers, last in zip(*columns, strict=True):
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells, last]).rstrip())
    return "\n".join(lines)
