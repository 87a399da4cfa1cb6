"""Tables and the picture of `few_cases.py`: Dice against steps, and against cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from few_cases_arms import ARMS
from markdown import table

PLATEAU_STEPS = 300
"""An arm is at its plateau where so many last steps gained nothing."""
BUDGETS = {"a third": 1 / 3, "two thirds": 2 / 3, "all": 1.0}
"""Shares of the cost of the cheapest arm's runs at which all arms are compared."""
DICE_SHOWN = 0.3
"""How far below the best arm the picture reaches: the first steps of some would leave the rest flat."""


def results(work: Path) -> list[dict[str, Any]]:
    """All finished runs."""
    return [json.loads(p.read_text()) for p in sorted((work / "runs").glob("*.json"))]


def costs(work: Path) -> dict[str, dict[str, float]]:
    """What `--cost` measured: seconds, TFLOP and GiB of a step by arm; older files have seconds alone."""
    file = work / "cost.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def grouped(work: Path) -> list[tuple[int, str, list[dict[str, Any]]]]:
    """(cases, arm, runs of all seeds) in the order of the tables."""
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for result in results(work):
        groups.setdefault((result["cases"], result["arm"]), []).append(result)
    order = list(ARMS)
    found = sorted(groups.items(), key=lambda g: (g[0][0], order.index(g[0][1])))
    return [(cases, arm, runs) for (cases, arm), runs in found]


def curve(runs: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(steps, Dice of each seed and step), as far as all seeds reach."""
    length = min(len(run["curve"]) for run in runs)
    points = np.array([run["curve"][:length] for run in runs], dtype=float)
    return points[0, :, 0], points[..., 1]


def summary(work: Path) -> str:
    """All tables that there are results for."""
    parts = [scores_table(work)]
    if costs(work):
        parts += [cost_table(work), equal_cost_table(work)]
    return "\n\n".join(parts)


def scores_table(work: Path) -> str:
    """Mean and standard error over seeds: one row per arm and number of cases."""
    rows = []
    for cases, arm, runs in grouped(work):
        scores = [np.array(run["scores"], dtype=float) for run in runs]  # (case, label, 3)
        mean = [np.nanmean(s, axis=(0, 1)) for s in scores]
        spreads = [spelled([m[i] for m in mean]) for i in range(3)]
        shuffled = spelled([run["shuffled_dice"] for run in runs])
        rows.append(
            [
                cases,
                ARMS[arm].what,
                len(runs),
                runs[0]["steps"],
                *spreads,
                shuffled,
                late_gain(runs),
            ]
        )
    return table(
        "cases|arm|seeds|steps|Dice|HD95 mm|surface Dice (1 mm)|Dice, slices shuffled|"
        f"gain of the last {PLATEAU_STEPS} steps",
        rows,
    )


def late_gain(runs: list[dict[str, Any]]) -> str:
    """Dice on the way that the last PLATEAU_STEPS steps have added, as a mean over seeds."""
    steps, dice = curve(runs)
    if not len(steps) or steps[-1] - PLATEAU_STEPS < steps[0]:
        return ""
    mean = dice.mean(0)
    return f"{mean[-1] - np.interp(steps[-1] - PLATEAU_STEPS, steps, mean):+.3f}"


def spelled(values: list[float]) -> str:
    """Mean, and the standard error where there are several."""
    mean = f"{np.mean(values):.3f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.3f}"


def cost_table(work: Path) -> str:
    """Seconds, operations and memory of a step of each arm."""
    known = costs(work)
    rows = [
        [
            ARMS[arm].what,
            *(
                f"{known[arm][k]:.3g}" if k in known[arm] else ""
                for k in ("seconds", "tflop", "gib")
            ),
        ]
        for arm in ARMS
        if arm in known
    ]
    return table("arm|s a step|TFLOP a step|GiB", rows)


def equal_cost_table(work: Path) -> str:
    """Dice on the way at equal training times: shares of that of the cheapest arm's whole runs."""
    known, rows = costs(work), []
    timed = [(cases, arm, *curve(runs)) for cases, arm, runs in grouped(work) if arm in known]
    for cases, arm, steps, dice in timed:
        cheapest = min(s[-1] * known[a]["seconds"] for n, a, s, _ in timed if n == cases)
        reached = steps * known[arm]["seconds"]
        cells = [
            f"{np.interp(share * cheapest, reached, dice.mean(0)):.3f}"
            if share * cheapest >= reached[0]
            else ""
            for share in BUDGETS.values()
        ]
        rows.append([cases, ARMS[arm].what, f"{cheapest:.0f}", *cells])
    return table(
        f"cases|arm|cheapest arm's time, s|{'|'.join(f'Dice after {b} of it' for b in BUDGETS)}",
        rows,
    )


def picture(work: Path) -> None:
    """Curves of Dice against steps, and against cost where it was measured: WORK/few_cases.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups, known = grouped(work), costs(work)
    sizes = sorted({cases for cases, _, _ in groups})
    rows = 2 if known else 1
    present = [arm for arm in ARMS if any(arm == one for _, one, _ in groups)]
    legend_inches = 0.25 * -(-len(present) // len(sizes)) + 0.2
    height = 4 * rows + legend_inches
    figure, axes = pyplot.subplots(
        rows, len(sizes), figsize=(5 * len(sizes), height), squeeze=False, sharey="col"
    )
    # of those present, so that two have one colour only where there are more than twenty
    colors = pyplot.get_cmap("tab20").colors
    for cases, arm, runs in groups:
        steps, dice = curve(runs)
        for row, scale in enumerate([1.0, known.get(arm, {}).get("seconds")][:rows]):
            if scale is None:
                continue
            axis, color = axes[row, sizes.index(cases)], colors[present.index(arm) % len(colors)]
            axis.plot(steps * scale, dice.mean(0), color=color, label=ARMS[arm].what)
            if len(runs) > 1:
                low, high = dice.min(0), dice.max(0)
                axis.fill_between(steps * scale, low, high, color=color, alpha=0.15)
    for column, cases in enumerate(sizes):
        axes[0, column].set_title(f"{cases} training cases")
        axes[0, column].set_xlabel("optimizer steps")
        if known:
            axes[1, column].set_xlabel("training time on quiet cores, s")
    for axis in axes[:, 0]:
        axis.set_ylabel("mean Dice of the test cases")
    for axis in axes[0]:
        top = max((line.get_ydata().max() for line in axis.lines), default=1.0)
        axis.set_ylim(max(0.0, top - DICE_SHOWN), top + 0.02)
    # not every arm is in every column
    lines = {line.get_label(): line for axis in axes[0] for line in axis.lines}
    order = [ARMS[arm].what for arm in present if ARMS[arm].what in lines]
    figure.tight_layout(rect=(0, legend_inches / height, 1, 1))
    figure.legend([lines[what] for what in order], order, loc="lower center", ncols=len(sizes))
    figure.savefig(work / "few_cases.png", dpi=110)
    pyplot.close(figure)
