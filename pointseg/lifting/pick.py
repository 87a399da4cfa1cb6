"""The point of a cloud that somebody picked, by its number or its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from pointseg.scene import Scene


@dataclass(frozen=True)
class Picked:
    """A point of a file."""

    row: int
    """Its row in the file, from 0."""
    place: NDArray[np.float64]
    """(3,) its position in the file's coordinates."""

    def __str__(self) -> str:
        x, y, z = self.place
        return f"point {self.row} at {x:.3f} {y:.3f} {z:.3f}"


def find_picked(scene: Scene, pick: Sequence[float]) -> Picked:
    """The picked point.

    Args:
        scene: as its file has it, points without a position included.
        pick: the row of a point, from 0; or x, y and z in the file's coordinates, for the nearest point.

    Raises:
        UserError: neither one nor three numbers, no such row, or a point without a position.
    """
    finite = np.asarray(np.isfinite(scene.coord).all(1))
    if len(pick) == 3:
        if not finite.any():
            raise UserError(f"--pick: no point of {scene.name} has a position")
        away = scene.coord - (np.asarray(pick, np.float64) - scene.origin)
        row = int(np.argmin(np.where(finite, np.square(away).sum(1), np.inf)))
    elif len(pick) == 1:
        row = int(pick[0]) if float(pick[0]).is_integer() else -1
        if not 0 <= row < len(scene):
            raise UserError(
                f"--pick: must be a row of the cloud, 0 to {len(scene) - 1}, or x, y and z, got {pick[0]:g}"
            )
        if not finite[row]:
            raise UserError(f"--pick: point {row} has no position (NaN), so no image shows it")
    else:
        raise UserError(f"--pick: must be one row, or x, y and z, got {len(pick)} numbers")
    return Picked(row, scene.coord[row].astype(np.float64) + scene.origin)


def require_seen(scene: Scene, picked: Picked, seen: NDArray[np.bool_]) -> None:
    """Refuse a point that no image shows.

    Args:
        scene: as for ``find_picked``.
        picked: the point.
        seen: (N,) whether an image shows each point of the scene; at least one.

    Raises:
        UserError: none shows the point; the message names the nearest one that is shown.
    """
    if seen[picked.row]:
        return
    rows = np.flatnonzero(seen)
    away = np.linalg.norm(scene.coord[rows] + scene.origin - picked.place, axis=1)
    nearest = int(np.argmin(away))
    raise UserError(
        f"--pick: no image shows point {picked.row}; the nearest one that is shown is point {rows[nearest]}, "
        f"{away[nearest]:.3g} away"
    )
