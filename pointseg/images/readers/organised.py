"""Organised RGB-D clouds: a grid of points that is an image as well; its camera is fitted to the points."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointseg.files import CloudFileError, read_cloud
from pointseg.files.pcd.header import read_header
from pointseg.images.readers.frame import Frame, ImagesError, make_camera
from pointseg.images.readers.image_files import file_key

FIT_PX = 0.5
"""Mean distance in pixels between points and their pixels, at most, under the fitted pinhole camera."""


@dataclass(frozen=True)
class Grid:
    """The contents of an organised cloud."""

    color: NDArray[np.uint8]
    """(H, W, 3) red, green, blue."""
    xyz: NDArray[np.float32]
    """(H, W, 3) positions in the unit of the file; NaN where nothing was measured."""


@dataclass(frozen=True)
class OrganisedImage:
    """Reads the colours of an organised cloud, which exist where depth is missing, too."""

    path: Path
    """The file."""

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> NDArray[np.uint8]:
        """See ImageSource.read."""
        return read_grid(self.path).color

    def key(self) -> str:
        """See ImageSource.key."""
        return file_key(self.path)


@dataclass(frozen=True)
class OrganisedDepth:
    """Reads the depths of an organised cloud."""

    path: Path
    """The file."""
    unit_m: float = 1.0
    """Metres per unit of the file."""

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> NDArray[np.float32]:
        """See DepthSource.read."""
        z = read_grid(self.path).xyz[:, :, 2]
        known = np.isfinite(z) & (z > 0)
        return np.where(known, z * np.float32(self.unit_m), np.float32(0))


def organised_frame(path: Path, *, unit_m: float = 1.0) -> Frame:
    """The one frame of an organised cloud, with its camera at the origin of the coordinates.

    Args:
        path: a ``.pcd`` file with more than one row; x right, y down, z forward.
        unit_m: metres per unit of the file.

    Raises:
        ImagesError: it is not organised, has no colour, or is not of a pinhole camera at the origin.
        CloudFileError: the file is missing or damaged.
    """
    intrinsics, size = _fitted(path, file_key(path))
    return Frame(
        name=path.stem,
        camera=make_camera(
            str(path), intrinsics=np.array(intrinsics), size=size, world_to_camera=np.eye(4)
        ),
        image=OrganisedImage(path),
        depth=OrganisedDepth(path, unit_m),
    )


def fit_pinhole(xyz: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Fit a pinhole camera to an organised cloud by least squares.

    Args:
        xyz: (H, W, 3) positions, NaN where unknown; the point of row v, column u projects to (u + 0.5, v + 0.5).

    Returns:
        (3, 3) intrinsics; the mean distance in pixels between points and their pixels.

    Raises:
        ValueError: fewer than 100 points in front of the camera, or all in one row or column.
    """
    row, column = np.nonzero(np.isfinite(xyz).all(2) & (xyz[:, :, 2] > 0))
    if len(row) < 100:
        raise ValueError(f"has only {len(row)} points with a z above 0 (forward)")
    x, y, z = xyz[row, column].astype(np.float64).T
    intrinsics, errors = np.eye(3), []
    for axis, (tangent, pixel) in enumerate(((x / z, column + 0.5), (y / z, row + 0.5))):
        spread = tangent - tangent.mean()
        if not np.abs(spread).max() > 1e-9:
            raise ValueError("has all of its points in one row or column")
        focal = float(spread @ (pixel - pixel.mean()) / (spread @ spread))
        centre = float(pixel.mean() - focal * tangent.mean())
        intrinsics[axis, axis], intrinsics[axis, 2] = focal, centre
        errors.append(focal * tangent + centre - pixel)
    return intrinsics, float(np.hypot(*errors).mean())


@lru_cache(maxsize=4096)
def _fitted(path: Path, key: str) -> tuple[tuple[tuple[float, ...], ...], tuple[int, int]]:
    """Intrinsics and size; cached, since reading the whole file takes long."""
    grid = read_grid(path)
    try:
        intrinsics, error = fit_pinhole(grid.xyz)
    except ValueError as problem:
        raise ImagesError(f"{path}: its camera cannot be fitted: {problem}") from problem
    if error > FIT_PX or intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
        raise ImagesError(
            f"{path}: does not fit a pinhole camera at the origin (x right, y down, z forward): points are "
            f"{error:.2g} pixels off in the mean, focal lengths are {intrinsics[0, 0]:.4g} and "
            f"{intrinsics[1, 1]:.4g}; if the points were moved, describe the camera in a manifest"
        )
    rows = tuple(tuple(row) for row in intrinsics.tolist())
    return rows, (grid.color.shape[0], grid.color.shape[1])


def read_grid(path: Path) -> Grid:
    """Read an organised cloud; the last one stays in memory.

    Raises:
        ImagesError: it has only one row, or no colour.
        CloudFileError: it is missing or damaged.
    """
    try:
        changed = os.stat(path).st_mtime_ns
        return _grid(path, changed)
    except FileNotFoundError as error:
        raise CloudFileError(path, "does not exist") from error


@lru_cache(maxsize=1)
def _grid(path: Path, changed: int) -> Grid:
    width, height = grid_size(path)
    if height < 2 or width < 2:
        raise ImagesError(
            f"{path}: is not organised (WIDTH {width}, HEIGHT {height}) and therefore no image; describe its "
            f"images in a manifest"
        )
    scene = read_cloud(path)
    if "color" not in scene:
        raise ImagesError(f"{path}: has no colours (field rgb or rgba) and therefore no image")
    xyz = scene.coord if not scene.origin.any() else scene.coord + scene.origin
    return Grid(
        color=np.rint(scene["color"]).astype(np.uint8).reshape(height, width, 3),
        xyz=xyz.astype(np.float32).reshape(height, width, 3),
    )


def grid_size(path: Path) -> tuple[int, int]:
    """Read width and height from the header of a PCD file; height 1: not organised.

    Raises:
        CloudFileError: not a PCD file.
    """
    header = read_header(path)
    stated = {words[0]: words[1] for line in header.lines if len(words := line.split()) == 2}
    return int(stated.get(b"WIDTH", header.points)), int(stated.get(b"HEIGHT", 1))
