"""Pictures side by side under titles, with the legend of the classes below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pointseg.pictures.render import render

if TYPE_CHECKING:
    from matplotlib.cm import ScalarMappable

UNNAMED = (190, 190, 190)
"""Points without a class, in clouds."""
RIGHT, WRONG = (205, 208, 212), (214, 39, 40)
"""Points whose prediction is right and wrong."""
NOT_COUNTED = (112, 116, 122)
"""Points without a true class, where errors are shown: much darker than right ones."""
_MOST = 60
"""Classes in a legend; of more, those with the most points."""
_DPI = 100
_TITLE, _GAP, _ROW, _SCALE = 34, 8, 25, 44
"""Pixels: height of a title, space between pictures, height of a legend's row and of a scale."""
_LETTER, _TITLE_LETTER = 9, 11
"""Pixels that a letter takes, about, in legends and titles."""

Entry = tuple[str, Sequence[float]]
"""A name in a legend, and its colour: red, green, blue, 0 to 255."""


def class_colors(segment: NDArray[Any], colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N,) labels as (N, 3) colours; labels below 0 are grey.

    Args:
        segment: (N,) class of each point, or negative.
        colors: (K, 3) of each class.

    Raises:
        ValueError: a label of K or more.
    """
    if len(segment) and int(segment.max()) >= len(colors):
        raise ValueError(
            f"class_colors: labels must be below {len(colors)}, the number of colours, "
            f"got {int(segment.max())}"
        )
    table = np.concatenate([colors, np.array([UNNAMED], np.uint8)])
    return np.asarray(table[np.where(segment < 0, len(colors), segment)])


def labelled(
    coord: NDArray[np.floating[Any]],
    segment: NDArray[Any],
    names: Sequence[str],
    colors: NDArray[np.uint8],
    *,
    viewpoint: str = "oblique",
    size: tuple[int, int] = (960, 720),
) -> Image.Image:
    """One cloud in the colours of its classes, with their legend.

    Args:
        coord: (N, 3) positions.
        segment: (N,) classes, negative where there is none.
        names: K names.
        colors: (K, 3) colours.
        viewpoint: as :func:`~pointseg.pictures.render.render`.
        size: of the cloud's picture; the legend is added below.
    """
    picture = render(coord, class_colors(segment, colors), viewpoint=viewpoint, size=size)
    return sheet([("", picture)], legend=_entries(names, colors, segment))


def comparison(
    coord: NDArray[np.floating[Any]],
    truth: NDArray[Any],
    predicted: NDArray[Any],
    names: Sequence[str],
    colors: NDArray[np.uint8],
    *,
    photo: NDArray[Any] | None = None,
    size: tuple[int, int] = (640, 520),
    cut_ceiling: bool = True,
) -> Image.Image:
    """Truth, prediction and errors of one cloud side by side, with the legend of the classes.

    Args:
        coord: (N, 3) positions.
        truth: (N,) labels; negative ones are grey, and neither right nor wrong (darker among errors).
        predicted: (N,) predicted classes.
        names: K names.
        colors: (K, 3) colours.
        photo: (N, 3) the points' own colours, 0 to 255, shown first if given.
        size: of each of the pictures.
        cut_ceiling: whether rooms are shown without their ceiling.
    """
    counted = truth >= 0
    wrong = counted & (truth != predicted)
    share = float(wrong.sum() / max(1, counted.sum()))
    errors = np.full((len(coord), 3), NOT_COUNTED, np.uint8)
    errors[counted], errors[wrong] = RIGHT, WRONG
    panels = [] if photo is None else [("colours", np.asarray(photo))]
    panels += [
        ("truth", class_colors(truth, colors)),
        ("prediction", class_colors(predicted, colors)),
        (f"errors: {share:.1%} of the labelled points", errors),
    ]
    return sheet(
        [(t, render(coord, p, size=size, cut_ceiling=cut_ceiling)) for t, p in panels],
        legend=_entries(names, colors, np.concatenate([truth, predicted])),
    )


def sheet(
    panels: Sequence[tuple[str, Image.Image]],
    *,
    columns: int | None = None,
    legend: Sequence[Entry] = (),
    scale: ScalarMappable | None = None,
) -> Image.Image:
    """Pictures of equal size, pixel by pixel, under their titles in rows of ``columns``.

    Args:
        panels: (title, picture) each, at least one.
        columns: pictures per row; None: all in one row.
        legend: names and colours below the pictures, in as many columns as fit.
        scale: a scale of depths in metres below the pictures; its norm has both ends.

    Raises:
        ValueError: no pictures.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    if not panels:
        raise ValueError("sheet: 'panels' must hold at least one picture, got none")
    columns = len(panels) if columns is None else columns
    wide, high = panels[0][1].size
    bar = _TITLE if any(title for title, _ in panels) else 0
    width = columns * (wide + _GAP) - _GAP
    letters = max([1, *(len(name) for name, _ in legend)])
    in_a_row = max(1, min(len(legend), (width - 16) // (letters * _LETTER + 44)))
    below = -(-len(legend) // in_a_row) * _ROW + 16 if legend else 0
    height = -(-len(panels) // columns) * (bar + high) + below + (_SCALE if scale else 0)
    # a hundredth of a pixel more: sizes in inches are rounded down to pixels
    figure = Figure(figsize=((width + 0.01) / _DPI, (height + 0.01) / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    for number, (title, picture) in enumerate(panels):
        row, column = divmod(number, columns)
        left, top = column * (wide + _GAP), row * (bar + high)
        figure.figimage(np.asarray(picture), left, height - top - bar - high, origin="upper")
        middle = ((left + wide / 2) / width, 1 - (top + bar / 2) / height)
        text = _shortened(title, wide // _TITLE_LETTER)
        figure.text(*middle, text, ha="center", va="center", fontsize=13, parse_math=False)
    if legend:
        _add_legend(figure, legend, in_a_row, width)
    if scale is not None:
        assert scale.norm.vmin is not None and scale.norm.vmax is not None
        axes = figure.add_axes((0, 26 / height, 1, 14 / height))
        ticks = np.geomspace(scale.norm.vmin, scale.norm.vmax, 6 if width >= 400 else 3).tolist()
        drawn = figure.colorbar(scale, cax=axes, orientation="horizontal")
        drawn.set_ticks(ticks, labels=[f"{tick:.3g} m" for tick in ticks], minor=False)
        drawn.minorticks_off()
        ends = drawn.ax.get_xticklabels()
        ends[0].set_horizontalalignment("left")
        ends[-1].set_horizontalalignment("right")
    canvas.draw()
    return Image.fromarray(np.array(canvas.buffer_rgba())[..., :3])


def _add_legend(figure: Any, legend: Sequence[Entry], columns: int, width: int) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=np.divide(color, 255).tolist(), edgecolor="0.1") for _, color in legend
    ]
    drawn = figure.legend(
        handles=handles,
        labels=["."] * len(legend),  # set below: names may begin with _ or hold $
        loc="lower left",
        ncols=columns,
        frameon=False,
        fontsize=11,
        handlelength=1.1,
        handleheight=1.1,
        labelspacing=0.5,
        borderaxespad=0,
    )
    for text, (name, _) in zip(drawn.get_texts(), legend, strict=True):
        text.set_parse_math(False)
        text.set_text(_shortened(name, (width - 44) // _LETTER))


def _entries(names: Sequence[str], colors: NDArray[np.uint8], segment: NDArray[Any]) -> list[Entry]:
    """The legend of the classes that occur, of very many the most frequent, and of points without a class."""
    counts = np.bincount(segment[segment >= 0], minlength=len(names))
    frequent = set(np.argsort(-counts, kind="stable")[:_MOST].tolist())
    entries = [(names[k], colors[k].tolist()) for k in sorted(frequent) if counts[k]]
    return [*entries, ("no class", list(UNNAMED))] if (segment < 0).any() else entries


def _shortened(text: str, letters: int) -> str:
    """A text of at most so many letters, but at least four."""
    letters = max(4, letters)
    return text if len(text) <= letters else text[: letters - 3] + "..."
