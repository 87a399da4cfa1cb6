"""What became of the files of a prediction, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pointseg.engine.predict import Prediction


def table(results: Sequence[Prediction]) -> str:
    """One line per file: points, seconds, the most frequent classes."""
    rows = [("file", "points", "seconds", "classes")]
    for result in results:
        if result.status == "failed":
            rows.append((Path(result.source).name, "-", "-", "failed"))
            continue
        counts = sorted((result.classes or {}).items(), key=lambda item: -item[1])
        named = max(1, sum(count for _, count in counts))
        told = ", ".join(f"{name} {100 * count / named:.0f} %" for name, count in counts[:4])
        seconds = "kept" if result.status == "kept" else f"{result.seconds:.1f}"
        rows.append((Path(result.target).name, f"{result.points:,}", seconds, told))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{row[0].ljust(widths[0])}  {row[1].rjust(widths[1])}  {row[2].rjust(widths[2])}  {row[3]}"
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
