"""A small picture of a segmentation: an axial, a coronal and a sagittal slice with labels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dinomed3d.inference.palette import COLOURS

PANEL_PX = 228
"""A slice is at most this high and wide."""
THIN_PX = 8
"""A slice is at least this high and wide, so that a single plane is visible from the side."""
MARGIN_PX = 14
"""Border around each slice, for the letters."""
GAP_PX = 12
"""Distance between slices."""
SAMPLE_VOXELS = 500_000
"""About this many voxels decide the grey window and the position of the slices."""
FILL = 0.3
"""Opacity of the colour of a label."""

# Pixels are palette indices: greys, then tinted greys for each colour, then the pure colours.
_GREYS = 64
_TINTED = 24
_PURE = _GREYS + _TINTED * len(COLOURS)
_NAMES = (("L", "R"), ("P", "A"), ("I", "S"))
"""Letters of the lower and higher end of x, y, z in mm (RAS)."""


def draw_preview(
    image: NDArray[Any],
    mask: NDArray[Any],
    *,
    spacing_mm: Sequence[float],
    affine: Sequence[Sequence[float]],
) -> bytes:
    """Draw a scan and its mask: axial, coronal and sagittal slices side by side.

    Anterior or superior is up; the patient's right, or else anterior, is on the left. Slices run along
    the stored axes, labelled with the direction each is closest to: nothing is resampled.

    Args:
        image: (Z, Y, X), any real type, as stored; NaN is drawn black.
        mask: (Z, Y, X), unsigned; 0 is background.
        spacing_mm: (z, y, x).
        affine: 4 rows of 4, voxel (x, y, z) -> mm, RAS.

    Returns:
        A PNG of 20 to 80 KB.

    Raises:
        ValueError: different shapes, or no voxels.
    """
    if image.ndim != 3 or image.shape != mask.shape or image.size == 0:
        raise ValueError(
            "draw_preview: 'image' and 'mask' must be (Z, Y, X) of one shape with voxels, "
            f"got {image.shape} and {mask.shape}"
        )
    axes = anatomical_axes(affine)
    centre = centre_of_foreground(mask)
    low, high = grey_window(image)
    panels = []
    for across in sorted(range(3), key=lambda axis: -axes[axis][0]):  # of S, of A, of R
        # rows run along the one of the other two axes that is closest to S, else to A
        down, right = sorted({0, 1, 2} - {across}, key=lambda axis: -axes[axis][0])
        grey, labels = (
            _upright(v, across, centre[across], down, right, axes) for v in (image, mask)
        )
        size = _panel_size(
            [n * spacing_mm[a] for n, a in zip(grey.shape, (down, right), strict=True)]
        )
        letters = [_NAMES[axes[axis][0]] for axis in (down, right)]
        panels.append(_framed(_paint(grey, labels, size, low, high), letters))
    picture = Image.fromarray(_side_by_side(panels))
    picture.putpalette(_palette())
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def anatomical_axes(affine: Sequence[Sequence[float]]) -> list[tuple[int, bool]]:
    """Find the direction each stored axis is closest to; no two axes get the same.

    Args:
        affine: 4 rows of 4, voxel (x, y, z) -> mm, RAS.

    Returns:
        For z, y, x: 0, 1, 2 for left-right, posterior-anterior, inferior-superior; and whether the
        axis runs towards R, A, S.
    """
    matrix = np.asarray(affine, float)[:3, 2::-1]  # columns of z, y, x
    cosines = matrix / np.maximum(np.linalg.norm(matrix, axis=0), 1e-12)
    best = max(
        permutations(range(3)), key=lambda p: sum(abs(cosines[w, a]) for a, w in enumerate(p))
    )
    return [(world, bool(cosines[world, axis] >= 0)) for axis, world in enumerate(best)]


def centre_of_foreground(mask: NDArray[Any]) -> list[int]:
    """Choose the slices: per axis the centre of mass of the foreground.

    Where the plane at the centre shows little, as between two kidneys, the plane with most foreground;
    without foreground the middle of the volume.

    Args:
        mask: (Z, Y, X), unsigned.

    Returns:
        The plane of z, y, x.
    """
    steps = sample_steps(mask.shape)
    counts = _foreground_counts(mask[tuple(slice(None, None, step) for step in steps)])
    if not counts[0].any():  # the subsample may have missed it
        steps, counts = [1, 1, 1], _foreground_counts(mask)
    if not counts[0].any():
        return [n // 2 for n in mask.shape]
    planes = []
    for step, count in zip(steps, counts, strict=True):
        centre = int(round(float(np.average(np.arange(len(count)), weights=count))))
        if count[centre] < count.max() / 2:
            centre = int(count.argmax())
        planes.append(centre * step)
    return planes


def grey_window(image: NDArray[Any]) -> tuple[float, float]:
    """Percentiles 1 and 99 of a subsample of the finite intensities; (0, 0) without any."""
    steps = sample_steps(image.shape)
    sample = image[tuple(slice(None, None, step) for step in steps)].astype(np.float64)
    finite = sample[np.isfinite(sample)]
    if not len(finite):
        return 0.0, 0.0
    low, high = np.percentile(finite, (1, 99))
    return float(low), float(high)


def sample_steps(
    shape: Sequence[int], most_voxels: int = SAMPLE_VOXELS, *, longest_axis: int | None = None
) -> list[int]:
    """Strides that leave about so many voxels, smallest along short axes.

    Args:
        shape: of the volume.
        most_voxels: that are left, at most.
        longest_axis: that is left, at most; None for any.
    """
    steps = [1, 1, 1]

    def left() -> list[int]:
        return [-(-n // s) for n, s in zip(shape, steps, strict=True)]

    while np.prod(left()) > most_voxels or (
        longest_axis is not None and max(left()) > longest_axis
    ):
        longest = max(range(3), key=lambda axis: shape[axis] / steps[axis])
        steps[longest] += 1
    return steps


def _foreground_counts(mask: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Number of foreground voxels in each plane across z, y, x."""
    counts = [np.zeros(n, np.int64) for n in mask.shape]
    for z, plane in enumerate(mask):
        if not plane.any():
            continue
        inside = plane > 0
        counts[0][z] = np.count_nonzero(inside)
        counts[1] += inside.sum(1)
        counts[2] += inside.sum(0)
    return counts


def _upright(
    volume: NDArray[Any],
    across: int,
    plane: int,
    down: int,
    right: int,
    axes: Sequence[tuple[int, bool]],
) -> NDArray[Any]:
    """One slice with `down` as rows and `right` as columns, starting at S, A or R."""
    cut = volume[tuple(plane if axis == across else slice(None) for axis in range(3))]
    cut = cut if down < right else cut.T
    return cut[:: -1 if axes[down][1] else 1, :: -1 if axes[right][1] else 1]


def _panel_size(extent_mm: Sequence[float]) -> tuple[int, int]:
    """Height and width in pixels, in proportion to mm, within THIN_PX and PANEL_PX."""
    scale = PANEL_PX / max(extent_mm)
    height, width = (min(PANEL_PX, max(THIN_PX, round(mm * scale))) for mm in extent_mm)
    return height, width


def _paint(
    grey: NDArray[Any], labels: NDArray[Any], size: tuple[int, int], low: float, high: float
) -> NDArray[np.uint8]:
    """Draw a slice as palette indices.

    Args:
        grey: (H, W) intensities.
        labels: (H, W).
        size: of the result, pixels.
        low: intensity drawn black.
        high: intensity drawn white.
    """
    values = np.nan_to_num(grey.astype(np.float64), nan=low, posinf=high, neginf=low)
    half = max(high / 2 - low / 2, np.finfo(float).tiny)  # halves: high - low may overflow
    shade = 255 * ((np.clip(values, low, high) / 2 - low / 2) / half)
    small = Image.fromarray(shade.astype(np.uint8)).resize(size[::-1], Image.Resampling.BILINEAR)
    shades = np.asarray(small).astype(np.uint16)
    shown = labels
    for axis in (0, 1):  # of all labels in one pixel the highest, so that small ones stay
        starts = np.arange(size[axis]) * labels.shape[axis] // size[axis]
        shown = np.maximum.reduceat(shown, starts, axis=axis)
    inside = shown > 0
    colour = (shown.astype(np.int64) - 1) % len(COLOURS)
    pixels = np.where(inside, _GREYS + colour * _TINTED + shades * _TINTED // 256, shades // 4)
    edge = inside & _outline(shown)
    return np.where(edge, _PURE + colour, pixels).astype(np.uint8)


def _outline(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels that share a side with another label or with the border of the picture."""
    padded = np.pad(labels, 1)
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.logical_or.reduce([labels != other for other in neighbours])


def _framed(panel: NDArray[np.uint8], letters: Sequence[tuple[str, str]]) -> NDArray[np.uint8]:
    """Add a black border with the letters (bottom, top) and (right, left)."""
    (bottom, top), (right, left) = letters
    height, width = (n + 2 * MARGIN_PX for n in panel.shape)
    frame = Image.new("L", (width, height))
    draw = ImageDraw.Draw(frame)
    font = ImageFont.load_default()
    near = MARGIN_PX // 2
    for text, where in (
        (top, (width / 2, near)),
        (bottom, (width / 2, height - near)),
        (left, (near, height / 2)),
        (right, (width - near, height / 2)),
    ):
        box = draw.textbbox((0, 0), text, font=font)
        corner = [w - (a + b) / 2 for w, a, b in zip(where, box[:2], box[2:], strict=True)]
        draw.text((corner[0], corner[1]), text, fill=255, font=font)
    framed = np.asarray(frame) // 4
    framed[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = panel
    return framed


def _side_by_side(panels: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Join panels, centred in height."""
    height = max(panel.shape[0] for panel in panels)
    padded = []
    for panel in panels:
        spare = height - panel.shape[0]
        padded.append(np.pad(panel, ((spare // 2, spare - spare // 2), (GAP_PX // 2, GAP_PX // 2))))
    return np.concatenate(padded, axis=1)


def _palette() -> list[int]:
    """Red, green, blue of each palette index, flattened."""
    rgb = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLOURS]
    entries = [[255 * g // (_GREYS - 1)] * 3 for g in range(_GREYS)]
    for colour in rgb:
        for shade in range(_TINTED):
            grey = 255 * shade / (_TINTED - 1)
            entries.append([round(FILL * c + (1 - FILL) * grey) for c in colour])
    return [part for entry in [*entries, *rgb] for part in entry]
