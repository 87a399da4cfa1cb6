"""The results of a prediction as a text table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pointseg.prediction.results.prediction import Prediction

FREQUENT = 4
"""Number of classes that are listed."""


def summary_table(results: Sequence[Prediction]) -> str:
    """One line per file: points, seconds, share visible in images (if images were used), frequent classes.

    Where some confidence was asked for, also how many points have less, and thus no class.
    """
    table = pd.DataFrame([_row(result) for result in results])
    if all(result.visible is None for result in results):
        del table["visible"]
    if all(result.rejected is None for result in results):
        del table["rejected"]
    return str(table.to_string(index=False))


def _row(result: Prediction) -> dict[str, str]:
    if result.status == "failed":
        name = Path(result.source).name
        nothing = {"points": "-", "seconds": "-", "visible": "-", "rejected": "-"}
        return {"file": name, **nothing, "classes": "failed"}
    counts = sorted((result.classes or {}).items(), key=lambda item: -item[1])
    total = max(1, sum(count for _, count in counts))
    shares = [f"{name} {100 * count / total:.0f} %" for name, count in counts[:FREQUENT]]
    return {
        "file": Path(result.target).name,
        "points": f"{result.points:,}",
        "seconds": "kept" if result.status == "kept" else f"{result.seconds:.1f}",
        "visible": "-" if result.visible is None else f"{100 * result.visible:.0f} %",
        "rejected": "-" if result.rejected is None else _rejected(result),
        "classes": ", ".join(shares),
    }


def _rejected(result: Prediction) -> str:
    found = result.rejected or 0
    return f"{found:,} ({100 * found / max(1, result.points):.1f} %)"
