"""Tables of the DITR benchmarks: means over seeds, and differences of arms that are paired by seed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ditr_methods import Arm
from markdown import table

from pointseg.metrics import Confusion

Columns = Mapping[str, Callable[[Confusion], float]]
"""Scores by title, 0 to 1; the first is compared between arms."""


def iou_of(rows: Sequence[int]) -> Callable[[Confusion], float]:
    """The IoU of some classes taken as one class."""

    def score(confusion: Confusion) -> float:
        matrix = confusion.matrix
        inside = matrix[np.ix_(rows, rows)].sum()
        return float(inside / (matrix[rows].sum() + matrix[:, rows].sum() - inside))

    return score


def show(
    found: Sequence[Mapping[str, Any]],
    arms: Sequence[Arm],
    columns: Columns,
    pairs: Sequence[tuple[Arm, Arm]],
) -> str:
    """Mean and standard error over the seeds that every arm has, and differences of arms, paired by seed.

    Args:
        found: what ``Bench.run`` returned.
        arms: rows of the table, in this order.
        columns: of the table.
        pairs: differences to show, the first arm minus the second.
    """
    name, main = next(iter(columns.items()))
    by_arm: dict[str, dict[int, Confusion]] = {}
    minutes: dict[str, list[float]] = {}
    for run in found:
        if run["confusion"] is not None:
            confusion = Confusion.of(np.array(run["confusion"]))
            by_arm.setdefault(run["arm"], {})[run["seed"]] = confusion
        minutes.setdefault(run["arm"], []).append(run["minutes"])
    rows = []
    for arm in arms:
        runs = by_arm.get(arm.name, {})
        cells = [spread([100 * score(c) for c in runs.values()]) for score in columns.values()]
        each = ", ".join(f"{100 * main(runs[seed]):.1f}" for seed in sorted(runs))
        if arm.name in minutes:
            rows.append([arm.name, *cells, each, f"{statistics.fmean(minutes[arm.name]):.1f}"])
    for one, other in pairs:
        first, second = by_arm.get(one.name, {}), by_arm.get(other.name, {})
        both = sorted(first.keys() & second.keys())
        gains = [100 * (main(first[seed]) - main(second[seed])) for seed in both]
        if gains:
            listed = ", ".join(f"{gain:.1f}" for gain in gains)
            empty = [""] * (len(columns) - 1)
            rows.append([f"{one.name} minus {other.name}", spread(gains), *empty, listed, ""])
    return table("|".join(["IoU, %", *columns, f"{name}, seed by seed", "min"]), rows)


def spread(values: Sequence[float]) -> str:
    """Mean and standard error."""
    if not values:
        return ""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{statistics.fmean(values):.1f} ± {error:.1f}"
