"""Columns without names, recognised by their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointseg.files.table.errors import CloudFileError


def guessed_names(path: Path, table: NDArray[np.float64]) -> list[str]:
    """A name for each column of (N, C) numbers: positions, then colours, normals and intensities by their values.

    Raises:
        CloudFileError: fewer than three columns.
    """
    width = table.shape[1]
    if width < 3:
        raise CloudFileError(path, f"has {width} numbers a line; a point needs at least x, y and z")
    names = [*"xyz", *(f"column{number}" for number in range(4, width + 1))]
    if width == 4:
        names[3] = "intensity"
    at, free = 3, {"color", "normal"}
    while at + 3 <= width and free:
        kind = _kind(table[:, at : at + 3])
        if kind in free:
            names[at : at + 3] = ["red", "green", "blue"] if kind == "color" else ["nx", "ny", "nz"]
            free.discard(kind)
            if at == 4:
                names[3] = "intensity"
            at += 3
        elif at == 3:
            at += 1
        else:
            break
    return names


def _kind(values: NDArray[np.float64]) -> str:
    """Normal, color or neither: what three columns seem to be."""
    if len(values) == 0 or not np.isfinite(values).all():
        return "neither"
    length = np.linalg.norm(values, axis=1)
    if (np.abs(length - 1) < 0.02).mean() > 0.9:
        return "normal"
    whole = bool((np.floor(values) == values).all())
    fits = values.min() >= 0 and (values.max() <= 1 or (whole and values.max() <= 255))
    return "color" if fits else "neither"
