"""Features as colours: their first three principal components are red, green and blue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.pictures.render import render
from pointseg.pictures.sheets import UNNAMED, sheet

_SAMPLE = 8192
"""Rows that components are found from, over all sets of features."""
_BASIS, _ROUNDS = 8, 16
"""Directions and rounds of the subspace iteration: five more than needed make it converge fast."""
_TRIM = 2.0
"""Per cent of the sample on each side that saturates."""


@dataclass(frozen=True)
class Components:
    """Three directions in a space of features, and how far colours reach along each."""

    mean: NDArray[np.float32]
    """(C,) the middle of the features."""
    axes: NDArray[np.float32]
    """(C, 3) orthonormal, in order of variance; zeros where there are fewer directions than three."""
    low: NDArray[np.float32]
    """(3,) the place along each direction that is shown as 0."""
    high: NDArray[np.float32]
    """(3,) the place along each direction that is shown as 255."""
    directions: bool
    """Whether rows are normalised to unit length first."""

    def colors(self, features: Tensor, seen: Tensor | None = None) -> NDArray[np.uint8]:
        """(N, C) features as (N, 3) colours; grey where unseen or not finite.

        Raises:
            ValueError: other channels than the components have; not a flag per row.
        """
        rows, valid = _rows(features, seen)
        if rows.shape[1] != len(self.mean):
            raise ValueError(
                f"Components: 'features' must have {len(self.mean)} channels, got {rows.shape[1]}"
            )
        colors = np.full((len(rows), 3), UNNAMED, np.uint8)
        scale = np.where(self.high > self.low, self.high - self.low, 1)
        values = (self._places(rows[valid]) - self.low) / scale
        values[:, self.high <= self.low] = 0.5  # nothing varies along these
        colors[valid] = np.clip(255 * values + 0.5, 0, 255).astype(np.uint8)
        return colors

    def _places(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = _unit(rows) if self.directions else rows
        return np.asarray((rows - self.mean) @ self.axes)


def components(
    features: Sequence[Tensor],
    seen: Sequence[Tensor | None] | None = None,
    *,
    directions: bool = False,
) -> Components:
    """The three directions in which features vary most, the same for all the sets that are given.

    Every set has an equal say, however many rows it has. The sign of a direction is such that its
    largest entry is positive, so that the same features get the same colours each time.

    Args:
        features: sets of (N, C) features with the same C, at least one.
        seen: for each, (N,) which rows count, or None for all of them. Rows that are not finite never do.
        directions: bring rows to unit length first: for features whose length means nothing, such as
            those learnt with a cosine loss.

    Raises:
        ValueError: no set; sets of different channels; not a flag per row.

    Source: subspace iteration of Halko 2011, arXiv:0909.4061, as ``torch.pca_lowrank`` has it.
    """
    if not features:
        raise ValueError("components: 'features' must hold at least one set, got none")
    rng = np.random.default_rng(0)  # the same rows each time
    flags = [None] * len(features) if seen is None else seen
    sets = [_rows(values, valid) for values, valid in zip(features, flags, strict=True)]
    channels = sorted({rows.shape[1] for rows, _ in sets})
    if len(channels) > 1:
        raise ValueError(f"components: 'features' must have the same channels, got {channels}")
    taken = []
    for rows, valid in sets:
        index = np.flatnonzero(valid)
        most = max(1, _SAMPLE // len(sets))
        taken.append(rows[np.sort(rng.permutation(index)[:most])])
    sample = np.concatenate([_unit(rows) if directions else rows for rows in taken])
    mean = sample.mean(0) if len(sample) else np.zeros(channels[0], np.float32)
    axes = _axes((sample - mean).astype(np.float64)).astype(np.float32)
    places = (sample - mean) @ axes if len(sample) else np.zeros((1, 3), np.float32)
    low, high = np.percentile(places, [_TRIM, 100 - _TRIM], axis=0).astype(np.float32)
    return Components(mean=mean, axes=axes, low=low, high=high, directions=directions)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One set of features of a picture."""

    title: str
    """The title above the picture."""
    features: Tensor
    """(N, C) features of the points."""
    seen: Tensor | None = None
    """(N,) which points have a feature; None: all."""


def draw_features(
    coord: NDArray[np.floating[Any]],
    panels: Sequence[Panel],
    *,
    size: tuple[int, int] = (640, 520),
    cut_ceiling: bool = True,
) -> Image.Image:
    """Sets of features side by side; those with equal channels have the same components.

    Args:
        coord: (N, 3) positions of the points.
        panels: what is shown, at least one. The length of features is ignored.
        size: of each picture, width and height.
        cut_ceiling: whether rooms are shown without their ceiling.

    Raises:
        ValueError: no panel; a panel that has not a row for each point.
    """
    for panel in panels:
        if len(panel.features) != len(coord):
            raise ValueError(
                f"draw_features: panel '{panel.title}' must have {len(coord)} rows, got {len(panel.features)}"
            )
    pictures = []
    for panel in panels:
        same = [p for p in panels if p.features.shape[1] == panel.features.shape[1]]
        shared = components([p.features for p in same], [p.seen for p in same], directions=True)
        colors = shared.colors(panel.features, panel.seen)
        pictures.append((panel.title, render(coord, colors, size=size, cut_ceiling=cut_ceiling)))
    return sheet(pictures)


def write_features(
    path: Path,
    coord: NDArray[np.floating[Any]],
    panels: Sequence[Panel],
    *,
    cut_ceiling: bool = True,
) -> None:
    """Write ``draw_features`` as a PNG.

    Raises:
        WriteError: the system refuses to write there.
    """
    picture = draw_features(coord, panels, cut_ceiling=cut_ceiling)
    with new_file(path) as part:
        picture.save(part, format="PNG")


def _rows(features: Tensor, seen: Tensor | None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(N, C) on the CPU, and which rows have a colour."""
    if features.dim() != 2:
        raise ValueError(f"components: features must be (N, C), got {tuple(features.shape)}")
    rows = features.detach().float().cpu().numpy()
    valid = np.isfinite(rows).all(1)
    if seen is not None:
        if seen.shape != (len(rows),):
            raise ValueError(f"components: 'seen' must be ({len(rows)},), got {tuple(seen.shape)}")
        valid &= seen.detach().cpu().numpy().astype(bool)
    return rows, valid


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _axes(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C, 3) of (M, C) centred rows."""
    axes = np.zeros((rows.shape[1], 3))
    if not rows.any():
        return axes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same directions each time
        _, spread, found = torch.pca_lowrank(
            torch.from_numpy(rows), min(_BASIS, *rows.shape), center=False, niter=_ROUNDS
        )
    kept = int((spread[:3] > 1e-6 * spread[0]).sum())
    directions = found[:, :kept].numpy()
    largest = np.abs(directions).argmax(0)
    axes[:, :kept] = directions * np.where(directions[largest, np.arange(kept)] < 0, -1, 1)
    return axes
