"""The table and the picture of benchmarks/artifacts.py, from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markdown import table

from dinomed3d.evaluation.artifacts import ARTIFACTS, STRENGTHS

METRICS = {"dice": "Dice", "hd95_mm": "HD95 mm", "surface_dice": "surface Dice"}


def per_case(row: dict[str, Any], metric: str) -> dict[str, float]:
    """The mean over the labels that have a score, for each case that has any."""
    values: dict[str, list[float]] = {}
    for score in row["scores"]:
        if score[metric] is not None:
            values.setdefault(score["case"], []).append(score[metric])
    return {case: float(np.mean(found)) for case, found in values.items()}


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and its standard error (NaN for a single value)."""
    spread = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return (float(np.mean(values)) if len(values) else np.nan), float(spread)


def without_distance(row: dict[str, Any]) -> int:
    """Structures that are in one of the masks alone: they have Dice 0, and no HD95."""
    return sum(s["dice"] is not None and s["hd95_mm"] is None for s in row["scores"])


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A row for each artefact and strength; for further models also Dice minus that of the first, paired."""
    names = list(dict.fromkeys(row["model"] for row in rows))
    found = {(row["artifact"], row["strength"], row["model"]): row for row in rows}
    header = ["artefact", "value"]
    for name in names:
        header += [f"{name}: {text}" for text in METRICS.values()] + [f"{name}: missed"]
    header += [f"{name} − {names[0]}: Dice ± s.e." for name in names[1:]]
    lines = []
    for artifact, strength in dict.fromkeys((row["artifact"], row["strength"]) for row in rows):
        here = {n: found[artifact, strength, n] for n in names if (artifact, strength, n) in found}
        value = ARTIFACTS[artifact].values[strength - 1] if strength else "–"
        cells = [f"{artifact} {STRENGTHS[strength - 1]}" if strength else artifact, str(value)]
        for name in names:
            cells += _cells(here[name]) if name in here else ["–"] * (len(METRICS) + 1)
        for name in names[1:]:
            cells.append(_difference(here[names[0]], here[name]) if name in here else "–")
        lines.append(cells)
    return table("|".join(header), lines)


def _cells(row: dict[str, Any]) -> list[str]:
    means = [mean_and_error(list(per_case(row, metric).values()))[0] for metric in METRICS]
    return [f"{means[0]:.3f}", f"{means[1]:.2f}", f"{means[2]:.3f}", str(without_distance(row))]


def _difference(first: dict[str, Any], other: dict[str, Any]) -> str:
    one, two = per_case(first, "dice"), per_case(other, "dice")
    mean, error = mean_and_error([two[case] - one[case] for case in one if case in two])
    return f"{mean:+.3f} ± {error:.3f}"


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Dice against strength: a panel for each artefact, a line for each model, with standard errors."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["model"] for row in rows))
    artifacts = list(dict.fromkeys(row["artifact"] for row in rows if row["strength"])) or ["clean"]
    across = min(4, len(artifacts))
    down = -(-len(artifacts) // across)
    figure = Figure(figsize=(3.1 * across + 0.6, 2.9 * down + 0.6), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for axis, artifact in zip(axes.flat, artifacts, strict=False):
        for number, name in enumerate(names):
            own = [r for r in rows if r["model"] == name and r["artifact"] in ("clean", artifact)]
            points = [mean_and_error(list(per_case(row, "dice").values())) for row in own]
            means, errors = zip(*points, strict=True) if points else ((), ())
            axis.errorbar(
                # side by side, so that error bars do not cover each other
                [row["strength"] + 0.06 * (number - (len(names) - 1) / 2) for row in own],
                means, np.nan_to_num(errors), fmt=f"{'os^Dv'[number % 5]}-", capsize=3, label=name,
            )  # fmt: skip
        axis.set_title(artifact.replace("_", " "))
        axis.set_xticks(range(len(STRENGTHS) + 1), ["clean", *STRENGTHS], fontsize=8)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(artifacts) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("Dice, mean over labels and cases")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names), frameon=False)
    figure.savefig(path, dpi=110)
