"""A confusion matrix as a picture and as a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_file

_WRITTEN = 26
"""Up to so many classes, cells contain their share in per cent."""
_NAMED = 80
"""Up to so many classes, axes have their names; with more, their numbers."""


def write_confusion(
    matrix: NDArray[np.integer[Any]], names: Sequence[str], picture: Path, table: Path
) -> None:
    """Draw and write a confusion matrix.

    The picture shows shares of each row, and how many points the row has. The table has a row per
    labelled class: its points, the counts per predicted class, then the same as shares of the row.

    Args:
        matrix: (K, K) points; rows are labels, columns predictions.
        names: K names.
        picture: PNG to write.
        table: CSV to write.

    Raises:
        ValueError: sizes that do not fit.
    """
    if matrix.shape != (len(names), len(names)):
        raise ValueError(
            f"write_confusion: 'matrix' must be ({len(names)}, {len(names)}) as there are names, "
            f"got {matrix.shape}"
        )
    counts = matrix.sum(1)
    shares = matrix / np.maximum(counts, 1)[:, None]
    with new_file(table) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["labelled", "points", *names, *(f"{name} (share)" for name in names)])
        for name, count, row, share in zip(names, counts, matrix, shares, strict=True):
            texts = [f"{value:.6f}" if count else "" for value in share]
            writer.writerow([name, int(count), *map(int, row), *texts])
    with new_file(picture) as part:
        _draw(shares, counts, names, part)


def _draw(
    shares: NDArray[np.float64], counts: NDArray[np.int64], names: Sequence[str], path: Path
) -> None:
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    classes = len(names)
    cell = 0.42 if classes <= _WRITTEN else 0.2 if classes <= _NAMED else 0.06  # inches
    side = max(3.2, cell * classes)
    figure = Figure(figsize=(side + 2.6, side + 1.6), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = np.ma.masked_array(shares, np.broadcast_to((counts == 0)[:, None], shares.shape))
    palette = colormaps["Blues"].with_extremes(bad="0.95")  # classes without points
    image = axes.imshow(shown, cmap=palette, vmin=0, vmax=1, interpolation="nearest")
    size = 9 if classes <= _WRITTEN else 6.5
    if classes <= _NAMED:
        places = np.arange(classes)
        labels = [f"{name}  ({_short(count)})" for name, count in zip(names, counts, strict=True)]
        axes.set_xticks(places, names, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(places, labels, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled (points)" if classes <= _NAMED else "labelled")
    if classes <= _WRITTEN:
        for row in map(int, np.flatnonzero(counts)):
            for column in range(classes):
                share = shares[row, column]
                if share < 0.005:
                    continue
                color = "white" if share > 0.55 else "0.15"
                text = f"{100 * share:.0f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
        axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="0.92", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02, shrink=0.8)
    bar.set_label("share of the row, per cent", fontsize=9)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "25", "50", "75", "100"])
    figure.savefig(path, format="png", bbox_inches="tight", pad_inches=0.15)


def _short(count: int) -> str:
    """1234567 -> 1.2 M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return str(count)
