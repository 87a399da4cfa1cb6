"""Some points of a cloud that does not fit into memory, for pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointseg.files import cloud_name, in_pieces
from pointseg.files.columns.fields import fields_in
from pointseg.files.labelling.labels import SavedLabels
from pointseg.files.table.pieces import PIECE
from pointseg.scene import Scene

MOST = 4_000_000
"""Points in a picture: more than it has pixels, several times."""


def thinned(
    path: Path, labels: NDArray[np.int32] | SavedLabels, columns: Sequence[str] | None = None
) -> tuple[Scene, NDArray[np.int32]]:
    """Every k-th point of a file, around the first one that has a position, and their classes.

    Args:
        path: the file.
        labels: of all points.
        columns: names of its columns, as for ``in_pieces``.
    """
    step = max(1, -(-len(labels) // MOST))
    xyz, classes, start = [np.empty((0, 3))], [np.empty(0, np.int32)], 0
    for part in in_pieces(path, columns).read(PIECE):
        found = fields_in(path, part).xyz
        rows = slice(-start % step, None, step)
        xyz.append(found[rows].astype(np.float64))
        classes.append(labels[start : start + len(found)][rows])
        start += len(found)
    places, known = np.concatenate(xyz), np.concatenate(classes)
    held = np.isfinite(places).all(1)
    places, known = places[held], known[held]
    coord = (places - places[:1]).astype(np.float32)
    return Scene(coord=coord, name=cloud_name(path)), known
