"""The part of a volume in which a coarse model has found something, and its place on a network's grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.nnunet.preprocess import Box, Prepared, nonzero_box


@dataclass(frozen=True, kw_only=True)
class Region:
    """A box of voxels, in the order of axes that models are given."""

    box: Box
    """Slices along z, y, x."""
    shape: tuple[int, int, int]
    """Shape of the whole volume."""

    @property
    def share(self) -> float:
        """Fraction of the volume's voxels."""
        inside = math.prod(s.stop - s.start for s in self.box)
        return inside / math.prod(self.shape)

    def is_reached(self, mask: NDArray[Any]) -> bool:
        """Whether a mask has labels at a side of the box that is not one of the volume: it may be cut off there."""
        for axis, (span, size) in enumerate(zip(self.box, self.shape, strict=True)):
            cut = mask[self.box].swapaxes(0, axis)
            if (span.start > 0 and cut[0].any()) or (span.stop < size and cut[-1].any()):
                return True
        return False


def find_region(
    mask: NDArray[Any], spacing_mm: Sequence[float], *, margin_mm: float
) -> Region | None:
    """The box around everything that is labelled, with a margin.

    Example:
        Voxels 4 to 5 of 10, of 2 mm, with a margin of 3 mm: 2 voxels on each side, so 2 to 7.

    Args:
        mask: (Z, Y, X), 0 is background.
        spacing_mm: (z, y, x).
        margin_mm: on each side, rounded up to voxels and clipped at the volume.

    Returns:
        The region; None where nothing is labelled.
    """
    if not mask.any():
        return None
    spans = []
    for span, size, mm in zip(nonzero_box([mask]), mask.shape, spacing_mm, strict=True):
        margin = math.ceil(margin_mm / mm - 1e-6)
        spans.append(slice(max(0, span.start - margin), min(size, span.stop + margin)))
    a, b, c = mask.shape
    return Region(box=(spans[0], spans[1], spans[2]), shape=(a, b, c))


def on_network_grid(
    box: Box, prepared: Prepared, before: Sequence[int]
) -> tuple[tuple[int, int], ...] | None:
    """The planes of a network's padded grid that decide the voxels of a box.

    Args:
        box: of the whole volume, in the network's order of axes.
        prepared: the volume, for its crop and grid.
        before: padding before the grid.

    Returns:
        [start, stop) along each axis; None if the box lies outside the crop.
    """
    spans = []
    for span, crop, size, pad in zip(
        box, prepared.box, prepared.data.shape[1:], before, strict=True
    ):
        length = crop.stop - crop.start
        start, stop = max(0, span.start - crop.start), min(length, span.stop - crop.start)
        if start >= stop:
            return None
        # a voxel is interpolated between the two grid points around its centre
        first = math.floor((start + 0.5) * size / length - 0.5)
        last = math.ceil((stop - 0.5) * size / length - 0.5)
        spans.append((max(0, first) + pad, min(size - 1, last) + 1 + pad))
    return tuple(spans)


def keep_inside(mask: NDArray[Any], box: Box) -> NDArray[Any]:
    """A copy of a mask with background outside the box."""
    kept = np.zeros_like(mask)
    kept[box] = mask[box]
    return kept
