"""Pictures side by side under titles, with the legend of the classes below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pointseg.pictures.render import PAPER, render

INK = (30, 30, 30)
UNNAMED = (190, 190, 190)
"""Points without a class, in clouds and legends."""
RIGHT, WRONG = (205, 208, 212), (214, 39, 40)
"""Points that were named rightly and wrongly."""
_MOST = 60
"""Classes in a legend; of more, those with the most points."""


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
    up: str = "z",
    cut_ceiling: bool = True,
) -> Image.Image:
    """One cloud in the colours of its classes, with their legend.

    Args:
        coord: (N, 3) positions.
        segment: (N,) classes, negative where there is none.
        names: K names.
        colors: (K, 3) colours.
        viewpoint: as :func:`~pointseg.pictures.render.render`.
        size: of the cloud's picture; the legend comes below it.
        up: as :func:`~pointseg.pictures.render.render`.
        cut_ceiling: whether rooms are shown without their ceiling.
    """
    points = class_colors(segment, colors)
    picture = render(coord, points, viewpoint=viewpoint, size=size, up=up, cut_ceiling=cut_ceiling)
    return stacked([picture, legend(names, colors, size[0], counts=_counts(segment, len(names)))])


def comparison(
    coord: NDArray[np.floating[Any]],
    truth: NDArray[Any],
    predicted: NDArray[Any],
    names: Sequence[str],
    colors: NDArray[np.uint8],
    *,
    photo: NDArray[Any] | None = None,
    viewpoint: str = "oblique",
    size: tuple[int, int] = (640, 520),
    up: str = "z",
    cut_ceiling: bool = True,
) -> Image.Image:
    """Truth, prediction and errors of one cloud side by side, with the legend of the classes.

    Args:
        coord: (N, 3) positions.
        truth: (N,) labels; negative ones are grey, and neither right nor wrong.
        predicted: (N,) predicted classes.
        names: K names.
        colors: (K, 3) colours.
        photo: (N, 3) the points' own colours, 0 to 255, shown first if given.
        viewpoint: as :func:`~pointseg.pictures.render.render`.
        size: of each of the pictures.
        up: as :func:`~pointseg.pictures.render.render`.
        cut_ceiling: whether rooms are shown without their ceiling.
    """
    counted = truth >= 0
    wrong = counted & (truth != predicted)
    share = float(wrong.sum() / max(1, counted.sum()))
    errors = np.full((len(coord), 3), UNNAMED, np.uint8)
    errors[counted], errors[wrong] = RIGHT, WRONG
    panels = [] if photo is None else [("colours", np.asarray(photo))]
    panels += [
        ("truth", class_colors(truth, colors)),
        ("prediction", class_colors(predicted, colors)),
        (f"errors: {share:.1%} of the labelled points", errors),
    ]
    pictures = [
        titled(
            render(coord, shown, viewpoint=viewpoint, size=size, up=up, cut_ceiling=cut_ceiling),
            title,
        )
        for title, shown in panels
    ]
    counts = _counts(truth, len(names)) + _counts(predicted, len(names))
    sheet = beside(pictures)
    return stacked([sheet, legend(names, colors, sheet.width, counts=counts)])


def legend(
    names: Sequence[str],
    colors: NDArray[np.uint8],
    width: int,
    *,
    counts: NDArray[np.int64] | None = None,
) -> Image.Image:
    """Names beside patches of their colours, in as many columns as fit.

    Args:
        names: K names.
        colors: (K, 3) colours.
        width: of the picture, pixels.
        counts: (K,) points of each class; classes without any are left out, and of very many the
            rarest.
    """
    shown = list(range(len(names)))
    if counts is not None:
        shown = [k for k in shown if counts[k]]
        frequent = sorted(shown, key=lambda k: -int(counts[k]))[:_MOST]
        shown = [k for k in shown if k in set(frequent)]
    font = ImageFont.load_default(16)
    if not shown:
        return Image.new("RGB", (width, 1), PAPER)
    texts = [_shortened(names[k], font, width - 48) for k in shown]
    cell = max(int(font.getlength(text)) for text in texts) + 48
    columns = max(1, min(len(shown), (width - 8) // cell))
    rows = -(-len(shown) // columns)
    picture = Image.new("RGB", (width, rows * 24 + 16), PAPER)
    draw = ImageDraw.Draw(picture)
    for place, (k, text) in enumerate(zip(shown, texts, strict=True)):
        left, above = 12 + place % columns * cell, 8 + place // columns * 24
        draw.rectangle((left, above + 3, left + 16, above + 19), tuple(map(int, colors[k])), INK)
        draw.text((left + 24, above + 11), text, INK, font, anchor="lm")
    return picture


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a row, aligned at the top.

    Raises:
        ValueError: none were given.
    """
    if not pictures:
        raise ValueError("beside: 'pictures' must hold at least one picture")
    gap = 8
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(picture.height for picture in pictures)), PAPER)
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + gap
    return sheet


def titled(picture: Image.Image, title: str) -> Image.Image:
    """A picture under a line of text, which is cut off where it is too long."""
    font = ImageFont.load_default(20)
    bar = Image.new("RGB", (picture.width, 34), PAPER)
    text = _shortened(title, font, picture.width - 24)
    ImageDraw.Draw(bar).text((picture.width // 2, 19), text, INK, font, anchor="mm")
    return stacked([bar, picture])


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures, at least one, above each other, aligned at the left."""
    sheet = Image.new(
        "RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), PAPER
    )
    above = 0
    for picture in pictures:
        sheet.paste(picture, (0, above))
        above += picture.height
    return sheet


def _shortened(text: str, font: Any, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _counts(segment: NDArray[Any], classes: int) -> NDArray[np.int64]:
    return np.bincount(segment[segment >= 0], minlength=classes)
