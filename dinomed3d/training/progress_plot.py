"""Where stage II begins, in the picture of the training's progress that nnU-Net draws after each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib.figure import Figure


@contextmanager
def stages_marked(begin: int) -> Iterator[None]:
    """Mark the stages in figures that are saved meanwhile: nnU-Net draws, saves and closes its own at once.

    Args:
        begin: first epoch of stage II, from 0.
    """
    save = Figure.savefig

    def marking(figure: Figure, *args: Any, **kwargs: Any) -> None:
        mark_stages(figure, begin)
        save(figure, *args, **kwargs)

    Figure.savefig = marking  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Figure.savefig = save  # type: ignore[method-assign]


def mark_stages(figure: Figure, begin: int) -> None:
    """Draw a line before the first epoch of stage II, with a label, into each plot over epochs.

    Args:
        figure: its plots over epochs have "epoch" below the horizontal axis.
        begin: first epoch of stage II, from 0; nothing is drawn if there is no stage before it, or
            if it has not begun.
    """
    for axes in figure.axes:
        if axes.get_xlabel() != "epoch":
            continue
        epochs = [np.asarray(line.get_xdata(), float).max(initial=0) for line in axes.get_lines()]
        last = max(epochs, default=0.0)
        if not 0 < begin <= last:
            continue
        axes.axvline(begin - 0.5, color="0.3", linestyle="--", linewidth=3)
        is_left = begin <= last / 2  # the label stands on the side with more room
        axes.text(
            begin - 0.5,
            0.02,
            f" stage II from epoch {begin} ",
            horizontalalignment="left" if is_left else "right",
            verticalalignment="bottom",
            transform=axes.get_xaxis_transform(),
        )
