"""Features as colours: their first three principal components are red, green and blue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dinomed3d.runtime.atomic_files import new_file
from pointseg.pictures.render import render
from pointseg.pictures.sheets import UNNAMED, beside, titled

_SAMPLE = 8192
"""Rows that components are found from, over all sets of features."""
_BASIS, _ROUNDS = 8, 16
"""Of the subspace iteration: five directions more than needed, which makes it converge fast."""
_TRIM = 2.0
"""Per cent of the sample on each side that saturates."""


@dataclass(frozen=True)
class Components:
    """Three directions in a space of features, and how far colours reach along each."""

    mean: NDArray[np.float32]
    """(C,)."""
    axes: NDArray[np.float32]
    """(C, 3) orthonormal, in order of variance; zeros where there are fewer directions than three."""
    low: NDArray[np.float32]
    """(3,) what is shown as 0."""
    high: NDArray[np.float32]
    """(3,) what is shown as 255."""
    directions: bool
    """Whether rows are brought to unit length first."""

    def colors(self, features: Tensor, seen: Tensor | None = None) -> NDArray[np.uint8]:
        """(N, C) features as (N, 3) colours; grey where unseen or not finite.

        Raises:
            ValueError: other channels than the components have; not a flag per row.
        """
        rows, told = _rows(features, seen)
        if rows.shape[1] != len(self.mean):
            raise ValueError(
                f"Components: 'features' must have {len(self.mean)} channels, got {rows.shape[1]}"
            )
        colors = np.full((len(rows), 3), UNNAMED, np.uint8)
        scale = np.where(self.high > self.low, self.high - self.low, 1)
        values = (self._places(rows[told]) - self.low) / scale
        values[:, self.high <= self.low] = 0.5  # nothing varies along these
        colors[told] = np.clip(255 * values + 0.5, 0, 255).astype(np.uint8)
        return colors

    def _places(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = _unit(rows) if self.directions else rows
        return np.asarray((rows - self.mean) @ self.axes)


def components(
    features: Sequence[Tensor],
    seen: Sequence[Tensor | None] | None = None,
    *,
    directions: bool = False,
    rng: np.random.Generator | None = None,
) -> Components:
    """The three directions in which features vary most, the same for all the sets that are given.

    Every set has an equal say, however many rows it has. The sign of a direction is such that its
    largest entry is positive, so that the same features get the same colours each time.

    Args:
        features: sets of (N, C) features with the same C, at least one.
        seen: for each, (N,) which rows count, or None for all of them. Rows that are not finite never do.
        directions: bring rows to unit length first: for features whose length means nothing, such as
            those learnt with a cosine loss.
        rng: which rows are taken of large sets, and where the iteration starts; None: always the same.

    Raises:
        ValueError: no set; sets of different channels; not a flag per row.

    Source: subspace iteration after Halko 2011, arXiv:0909.4061, algorithm 4.4.
    """
    if not features:
        raise ValueError("components: 'features' must hold at least one set, got none")
    rng = np.random.default_rng(0) if rng is None else rng
    flags = [None] * len(features) if seen is None else seen
    sets = [_rows(values, told) for values, told in zip(features, flags, strict=True)]
    channels = sorted({rows.shape[1] for rows, _ in sets})
    if len(channels) > 1:
        raise ValueError(f"components: 'features' must have the same channels, got {channels}")
    taken = []
    for rows, told in sets:
        index = np.flatnonzero(told)
        most = max(1, _SAMPLE // len(sets))
        taken.append(rows[np.sort(rng.permutation(index)[:most])])
    sample = np.concatenate([_unit(rows) if directions else rows for rows in taken])
    mean = sample.mean(0) if len(sample) else np.zeros(channels[0], np.float32)
    axes = _axes((sample - mean).astype(np.float64), rng).astype(np.float32)
    places = (sample - mean) @ axes if len(sample) else np.zeros((1, 3), np.float32)
    low, high = np.percentile(places, [_TRIM, 100 - _TRIM], axis=0).astype(np.float32)
    return Components(mean=mean, axes=axes, low=low, high=high, directions=directions)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One set of features of a picture."""

    title: str
    features: Tensor
    """(N, C) of the points; of an image map (h * w, C), row by row."""
    seen: Tensor | None = None
    """(N,) which have a feature; None: all."""
    shape: tuple[int, int] | None = None
    """(h, w) of an image map; None: of the points."""


def draw_features(
    coord: NDArray[np.floating[Any]],
    panels: Sequence[Panel],
    *,
    photo: NDArray[Any] | None = None,
    directions: bool = True,
    viewpoint: str = "oblique",
    size: tuple[int, int] = (640, 520),
    up: str = "z",
    cut_ceiling: bool = True,
) -> Image.Image:
    """Sets of features side by side; those with equal channels have the same components.

    Args:
        coord: (N, 3) positions of the points.
        panels: what is shown, at least one.
        photo: (N, 3) the points' own colours, 0 to 255, shown first if given.
        directions: as ``components``.
        viewpoint: as :func:`~pointseg.pictures.render.render`, like what follows.
        size: of each picture, width and height.
        up: the axis that points up.
        cut_ceiling: whether rooms are shown without their ceiling.

    Raises:
        ValueError: no panel; a panel that has not a row for each point or cell.
    """
    if not panels:
        raise ValueError("draw_features: 'panels' must hold at least one panel, got none")
    for panel in panels:
        rows = len(coord) if panel.shape is None else panel.shape[0] * panel.shape[1]
        if len(panel.features) != rows:
            raise ValueError(
                f"draw_features: panel '{panel.title}' must have {rows} rows, got {len(panel.features)}"
            )
    pictures = []
    if photo is not None:
        points = render(
            coord, photo, viewpoint=viewpoint, size=size, up=up, cut_ceiling=cut_ceiling
        )
        pictures.append(titled(points, "colours"))
    shared: dict[int, Components] = {}
    for panel in panels:
        channels = panel.features.shape[1]
        if channels not in shared:
            alike = [other for other in panels if other.features.shape[1] == channels]
            shared[channels] = components(
                [other.features for other in alike],
                [other.seen for other in alike],
                directions=directions,
            )
        colors = shared[channels].colors(panel.features, panel.seen)
        if panel.shape is None:
            picture = render(
                coord, colors, viewpoint=viewpoint, size=size, up=up, cut_ceiling=cut_ceiling
            )
        else:
            picture = _map_picture(colors.reshape(*panel.shape, 3), size)
        pictures.append(titled(picture, panel.title))
    return beside(pictures)


def write_features(
    path: Path, coord: NDArray[np.floating[Any]], panels: Sequence[Panel], **settings: Any
) -> None:
    """Write ``draw_features`` as a PNG, under a temporary name first.

    Args:
        path: the file to be.
        coord: (N, 3) positions of the points.
        panels: what is shown.
        settings: those of ``draw_features``.
    """
    picture = draw_features(coord, panels, **settings)
    with new_file(path) as part:
        picture.save(part, format="PNG")


def _rows(features: Tensor, seen: Tensor | None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(N, C) on the CPU, and which rows have a colour."""
    if features.dim() != 2:
        raise ValueError(f"components: features must be (N, C), got {tuple(features.shape)}")
    rows = features.detach().float().cpu().numpy()
    told = np.isfinite(rows).all(1)
    if seen is not None:
        if seen.shape != (len(rows),):
            raise ValueError(f"components: 'seen' must be ({len(rows)},), got {tuple(seen.shape)}")
        told &= seen.detach().cpu().numpy().astype(bool)
    return rows, told


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _axes(rows: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """(C, 3) of (M, C) centred rows."""
    channels = rows.shape[1]
    axes = np.zeros((channels, 3))
    if not rows.any():
        return axes
    basis = rng.standard_normal((channels, min(_BASIS, channels)))
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(rows.T @ (rows @ basis))[0]
    _, spread, turned = np.linalg.svd(rows @ basis, full_matrices=False)
    kept = int((spread[:3] > 1e-6 * spread[0]).sum())
    found = basis @ turned[:kept].T
    largest = np.abs(found).argmax(0)
    axes[:, :kept] = found * np.where(found[largest, np.arange(kept)] < 0, -1, 1)
    return axes


def _map_picture(cells: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """An image map as large as fits, its cells as squares, on paper."""
    height, width = cells.shape[:2]
    scale = max(1, min(size[0] // width, size[1] // height))
    picture = Image.fromarray(cells).resize(
        (width * scale, height * scale), Image.Resampling.NEAREST
    )
    if picture.width > size[0] or picture.height > size[1]:
        picture.thumbnail(size)
    sheet = Image.new("RGB", size, (255, 255, 255))
    sheet.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
    return sheet
