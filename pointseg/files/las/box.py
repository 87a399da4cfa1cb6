"""Points of LAS files that lie outside the bounding box of their header: those that nobody wrote."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np

from pointseg.files.table.errors import CloudFileError

AXES = ("X", "Y", "Z")
ROUNDING = 2
"""Steps of the scale by which programs round the box differently."""


class Outside:
    """Looks at the points of a file in their order.

    A number of points that is too high makes decompressors invent points at the end, which lie anywhere. If other
    points lie outside, too, the box is out of date, and means nothing.
    """

    def __init__(self, path: Path, header: laspy.LasHeader) -> None:
        """Take the box of a header; ``path`` is for messages."""
        scales, offsets = np.asarray(header.scales), np.asarray(header.offsets)
        with np.errstate(all="ignore"):
            ends = np.stack([header.mins, header.maxs]) - offsets
            ends = np.sort(ends / scales, axis=0) + [[-ROUNDING], [ROUNDING]]
        self._is_known = bool(np.isfinite(ends).all())
        self._low, self._high = ends
        self._path, self._count = path, int(header.point_count)
        self._read = self._outside = self._tail = 0

    def add(self, points: laspy.ScaleAwarePointRecord, *, is_last: bool) -> None:
        """Look at a piece.

        Raises:
            CloudFileError: it is the last one, and the last points of the file alone lie outside.
        """
        if not self._is_known:
            return
        inside = np.ones(len(points), bool)
        for axis, low, high in zip(AXES, self._low, self._high, strict=True):
            inside &= (points[axis] >= low) & (points[axis] <= high)
        self._read += len(points)
        self._outside += len(points) - int(inside.sum())
        held = np.flatnonzero(inside)
        self._tail = len(points) - 1 - held[-1] if len(held) else self._tail + len(points)
        if is_last and 0 < self._tail == self._outside < self._read:
            raise CloudFileError(
                self._path,
                f"its header announces {self._count} points, but the last {self._tail} lie outside its bounding box, "
                "where no point was written: the number is too high, or the file is damaged; copy or export it again",
            )
