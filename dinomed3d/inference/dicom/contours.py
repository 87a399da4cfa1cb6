"""Outlines of a plane of a mask as closed polygons, each of one piece, and polygons filled again.

Outlines run half way between the centres of voxels inside and outside, so that every rule by which a reader fills
them, at centres, gives the mask back. Where a piece has holes, a channel without width connects their outlines to
the outer one, DICOM's keyhole technique (part 3, C.8.8.6.3): one polygon that readers which unite contours, and
those which combine them by exclusive or, fill alike.

    +-----------+
    |  +---+    |       the channel lies a quarter of a voxel off a row's centres,
    |==+   |    |       so that no centre is ever on it
    |  +---+    |
    +-----------+
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours

Ring = NDArray[np.int64]
"""(N, 2) points x, y of a polygon that is closed without repeating the first, in quarters of a voxel."""
_QUARTERS = 4


def plane_contours(plane: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """The outlines of a plane, a polygon for each piece of voxels that share sides.

    Args:
        plane: (Y, X).

    Returns:
        (N, 2) columns x and rows y of each, in voxels from the centre of the first one; the last point is connected
        to the first, which is not repeated.
    """
    pieces, _ = ndimage.label(plane)
    found = []
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        rings = _rings(pieces[box] == number)
        outer = max(range(len(rings)), key=lambda i: abs(_area(rings[i])))
        holes = [ring for i, ring in enumerate(rings) if i != outer]
        ring = _with_holes(rings[outer], holes)
        found.append(ring / _QUARTERS + (box[1].start, box[0].start))
    return found


def _rings(piece: NDArray[np.bool_]) -> list[Ring]:
    """The outer outline of a piece and those of its holes, which turn the other way."""
    padded = np.pad(piece, 1).astype(np.float64)
    outlines = find_contours(padded, 0.5, fully_connected="low")
    return [
        _corners(np.rint(_QUARTERS * (outline[:-1, ::-1] - 1)).astype(np.int64))
        for outline in outlines
    ]


def _corners(ring: Ring) -> Ring:
    """A polygon without the points that lie on a straight line between their neighbours."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    return ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def _area(ring: Ring) -> int:
    """Twice the signed area."""
    x, y = ring.T
    return int(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def _with_holes(ring: Ring, holes: Sequence[Ring]) -> Ring:
    """One polygon of an outline and its holes, from left to right each connected to what lies left of it."""
    for hole in sorted(holes, key=lambda one: int(one[:, 0].min())):
        y = int(hole[hole[:, 0].argmin(), 1]) + 1  # no corner of an outline lies at odd quarters
        edges, at = _crossings(hole, y)
        here = int(at.argmin())
        near, left = _crossings(ring, y)
        to_the_left = np.flatnonzero(left < at[here])
        there = int(to_the_left[left[to_the_left].argmax()])
        bridge = [(left[there], y), (at[here], y)]
        ring = np.concatenate(
            [
                ring[: near[there] + 1],
                bridge,
                np.roll(hole, -(edges[here] + 1), axis=0),
                bridge[::-1],
                ring[near[there] + 1 :],
            ]
        ).astype(np.int64)
    return ring


def _crossings(ring: Ring, y: int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """The edges of a polygon that cross a row, by their first points, and where."""
    low, high = ring, np.roll(ring, -1, axis=0)
    edges = np.flatnonzero((low[:, 1] <= y) != (high[:, 1] <= y))
    (x, start), (end_x, end) = low[edges].T, high[edges].T
    # edges of outlines are upright or at 45 degrees, so the place is a whole number of quarters
    return edges, x + (end_x - x) * (y - start) // (end - start)


def filled(
    contours: Sequence[NDArray[np.float64]], shape: tuple[int, int]
) -> NDArray[np.bool_] | None:
    """The voxels of a plane whose centres lie in an odd number of polygons; None if one leaves the plane.

    Args:
        contours: as `plane_contours` gives them.
        shape: (Y, X).
    """
    places: list[NDArray[np.int64]] = []
    for points in contours:
        x, y = points.T
        end_x, end_y = np.roll(x, -1), np.roll(y, -1)
        first = np.ceil(np.minimum(y, end_y)).astype(
            np.int64
        )  # a row counts for the edge that it begins in
        counts = np.ceil(np.maximum(y, end_y)).astype(np.int64) - first
        edges = np.repeat(np.arange(len(x)), counts)
        rows = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts - first, counts)
        steps = (rows - y[edges]) / (end_y - y)[edges]
        columns = np.ceil(x[edges] + steps * (end_x - x)[edges]).astype(np.int64)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns <= shape[1])
        if not inside.all():
            return None
        places.append(rows * (shape[1] + 1) + columns)
    toggled = np.bincount(
        np.concatenate([*places, np.empty(0, np.int64)]), minlength=shape[0] * (shape[1] + 1)
    )
    odd: NDArray[np.bool_] = toggled.reshape(shape[0], -1).cumsum(axis=1)[:, :-1] % 2 == 1
    return odd
