"""Where Waymo's points are in its images, as the dataset says: rolling shutters and the motion of the car included.

A point has up to two projections; the first is used, as in DITR.

Source: DITR (Knaebel et al. 2025), its published conversion.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.scene_arrays import is_saved, load_array, save_scene
from pointseg.datasets.waymo.points import IMAGE_FIELDS
from pointseg.datasets.waymo.tables import (
    CAMERAS,
    FRAME,
    LASER,
    LASERS,
    RETURNS,
    Row,
    Table,
    range_image,
    sensor_number,
)

ARRAYS = ("camera", "pixel")
FOLDER = "images"
"""Folder of a segment with a folder for each frame."""


@dataclass(frozen=True)
class ShippedProjection:
    """Where the points of a frame are in the image of one camera, as the dataset says."""

    folder: Path
    """Holds ``camera.npy`` and ``pixel.npy``."""
    camera: int
    """Number of the camera."""
    top: int
    """Rows that the image lacks."""

    def read(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """See PointProjection.read."""
        camera = load_array(self.folder, "camera", count, None)
        pixel = load_array(self.folder, "pixel", count, 2).astype(np.float32)
        pixel[:, 1] -= self.top
        return pixel, camera == self.camera


def write_projections(folder: Path, target: Path, frames: frozenset[int]) -> list[str]:
    """Write where the points of each frame are in the images; returns notes.

    Args:
        folder: of the split, in the official download.
        target: folder of the prepared segment, whose points exist.
        frames: timestamps of its frames.

    Raises:
        DatasetError: the table is missing or damaged.
        WriteError: the system refuses to write.
    """
    table = Table(folder, "lidar_camera_projection", "LiDARCameraProjectionComponent", target.name)
    waiting = {f for f in frames if not is_saved(projection_folder(target, f), ARRAYS)}
    pending: dict[int, _Pending] = {}
    bad: dict[int, str] = {}
    for row in table.rows((FRAME, LASER), IMAGE_FIELDS, frames=frozenset(waiting)):
        frame = row[FRAME]
        if frame not in waiting:
            continue
        found = pending.setdefault(frame, _Pending.of(target / str(frame)))
        try:
            laser = sensor_number(table, row[LASER], LASERS)
            found.look_up(table, row, laser)
        except DatasetError as error:
            bad[frame] = str(error)
            continue
        found.lasers.discard(laser)
        if not found.lasers:
            pending.pop(frame).save(projection_folder(target, frame))
            waiting.discard(frame)
    for frame in sorted(waiting):  # the other points are in no image
        found = pending.pop(frame) if frame in pending else _Pending.of(target / str(frame))
        found.save(projection_folder(target, frame))
        lacking = ", ".join(LASERS[laser - 1] for laser in sorted(found.lasers))
        bad.setdefault(frame, f"{table.path}: lacks {lacking}")
    return [
        f"frame {frame}: points of some scanners are in no image: {why}"
        for frame, why in bad.items()
    ]


def projection_folder(segment: Path, frame: int | str) -> Path:
    """Folder of the arrays that say where the points of a frame are, by folder of the segment and timestamp."""
    return segment / FOLDER / str(frame) / "points"


@dataclass
class _Pending:
    """The projection of one frame, as far as it is read."""

    cell: NDArray[Any]
    """(N, 4) scanner, return, row and column of each point, from ``cell.npy``."""
    camera: NDArray[np.int8]
    """(N,) number of the camera that shows the point, 0 for none."""
    pixel: NDArray[np.float32]
    """(N, 2) pixel of its image, the left edge of the first one being 0."""
    lasers: set[int]
    """Scanners that are not read yet."""

    @classmethod
    def of(cls, frame: Path) -> _Pending:
        """Nothing is read yet of a prepared frame."""
        cell = load_array(frame, "cell", None, 4)
        nowhere = np.zeros(len(cell), np.int8), np.zeros((len(cell), 2), np.float32)
        return cls(cell, *nowhere, set(np.unique(cell[:, 0]).tolist()))

    def save(self, folder: Path) -> None:
        """Write the arrays."""
        save_scene(folder, {"camera": self.camera, "pixel": self.pixel})

    def look_up(self, table: Table, row: Row, laser: int) -> None:
        """Fill in the first projection of the points of one scanner.

        Raises:
            DatasetError: a range image is malformed or has not the pixels of the points.
        """
        for number, name in enumerate(RETURNS):
            mine = np.flatnonzero((self.cell[:, 0] == laser) & (self.cell[:, 1] == number + 1))
            if not len(mine):
                continue
            image = range_image(table, row, name, 6)
            rows, columns = self.cell[mine, 2], self.cell[mine, 3]
            if image is None or rows.max() >= image.shape[0] or columns.max() >= image.shape[1]:
                raise DatasetError(
                    f"{table.path}: '{name}' of {LASERS[laser - 1]} has not the pixels of the range image"
                )
            found = image[rows, columns, :3]
            known = (found[:, 0] >= 1) & (found[:, 0] <= len(CAMERAS)) & np.isfinite(found).all(1)
            self.camera[mine[known]] = found[known, 0]
            self.pixel[mine[known]] = found[known, 1:]
