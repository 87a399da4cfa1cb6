"""A training run as curves: losses, learning rate, validation metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dinomed3d.runtime.files.atomic_files import new_file

_COLORS = {
    "loss": "#1f4e79",
    "cross_entropy": "#e08214",
    "lovasz": "#35978f",
    "cosine_points": "#e08214",
    "cosine_cls": "#35978f",
}
_LABELS = {"cross_entropy": "cross-entropy", "lovasz": "Lovász"}
_SCORES = {"val_voxel_miou": "#1f4e79", "val_voxel_accuracy": "#9aa5b1", "val_cosine": "#1f4e79"}


def draw_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the rows of ``metrics.csv``.

    Args:
        rows: each has ``step``, and of the losses, lr and validation metrics those that were measured
            there. Values are numbers or their text; empty and missing ones are skipped.
        path: PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    losses, quality = figure.subplots(1, 2)
    top = 0.0
    for name, color in _COLORS.items():
        step, value = _series(rows, name)
        if not len(step):
            continue
        label = _LABELS.get(name, name)
        losses.plot(step, value, color=color, linewidth=0.8, alpha=0.3)
        smooth = ndimage.uniform_filter1d(value, len(value) // 60 * 2 + 1, mode="nearest")
        losses.plot(step, smooth, color=color, linewidth=1.8, label=label)
        top = max(top, float(np.percentile(value, 98)))
    _finish(losses, "training loss")
    if top > 0:
        losses.set_ylim(0, 1.08 * top)  # large losses of the first steps do not flatten the rest
    step, rate = _series(rows, "lr")
    if len(step):
        right = losses.twinx()
        right.plot(step, rate, color="0.6", linewidth=1, linestyle="--", label="learning rate")
        right.set_ylim(bottom=0)
        right.set_ylabel("learning rate", color="0.45")
        right.tick_params(axis="y", colors="0.45")
        right.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    for name, color in _SCORES.items():
        step, value = _series(rows, name)
        if not len(step):
            continue
        quality.plot(step, 100 * value, color=color, linewidth=1.8, marker="o", markersize=3.5,
                     label=f"{name} (best {100 * value.max():.1f})")  # fmt: skip
    quality.set_ylim(0, 100)
    last = max([1.0, *(float(row["step"]) for row in rows)])
    for axes in (losses, quality):
        axes.set_xlim(0, 1.03 * last)
        axes.xaxis.get_major_locator().set_params(integer=True)
    _finish(quality, "validation, one point per voxel (per cent)")
    with new_file(path) as part:
        figure.savefig(part, format="png")


def _finish(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("step")
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(frameon=False, fontsize=9)
    else:
        axes.text(0.5, 0.5, "nothing yet", ha="center", va="center", color="0.5",
                  transform=axes.transAxes)  # fmt: skip


def _series(
    rows: Sequence[Mapping[str, Any]], name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of the rows that have this one, finite ones only."""
    found = [(row["step"], row[name]) for row in rows if row.get(name) not in (None, "")]
    table = np.array(found, np.float64).reshape(-1, 2)
    table = table[np.isfinite(table[:, 1])]
    return table[:, 0], table[:, 1]
