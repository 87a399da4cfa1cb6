"""Cameras of Structured3D: pinholes with half angles of view, and panoramas.

Positions are in millimetres in a world whose z axis points up. Here they are metres in the same world, which
is right-handed. (Pointcept stores y, x, z, which mirrors it.)

Source: the dataset's documentation and viewer (Zheng 2020, arXiv:1908.00222).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinomed3d.lifting import Camera
from pointseg.datasets.errors import DatasetError
from pointseg.images.readers.frame import make_camera

MM_PER_M = 1000.0
FARTHEST_M = 1000.0
"""Cameras farther than this from the origin of their scene are refused: rooms are a few metres large."""


def read_pinhole(path: Path, size: tuple[int, int]) -> Camera:
    """Read ``camera_pose.txt`` of a perspective view.

    Its 12 numbers are the position in millimetres, the view direction, the up direction, *half* the horizontal and
    the vertical angle of view in radians, and a flag.

    Args:
        path: the file.
        size: height and width of the images in pixels.

    Raises:
        DatasetError: it is missing or malformed, directions are parallel or zero, angles are not of a pinhole.
    """
    values = _numbers(path, 12)
    position, view, up, (across, down) = values[:3], values[3:6], values[6:9], values[9:11]
    right = np.cross(view, up)
    if not np.linalg.norm(right) > 1e-6:
        raise DatasetError(
            f"{path}: view and up direction must be two different directions, got {view} and {up}"
        )
    if not (0 < across < np.pi / 2 and 0 < down < np.pi / 2):
        raise DatasetError(
            f"{path}: half the angles of view must be above 0 and below pi / 2, got {across:g} and {down:g}"
        )
    forward = view / np.linalg.norm(view)
    right /= np.linalg.norm(right)
    turn = np.stack([right, np.cross(forward, right), forward])  # rows: right, down, forward
    centre_x, centre_y = size[1] / 2, size[0] / 2
    return make_camera(
        str(path),
        intrinsics=[
            [centre_x / np.tan(across), 0, centre_x],
            [0, centre_y / np.tan(down), centre_y],
            [0, 0, 1],
        ],
        size=size,
        world_to_camera=np.column_stack([turn, -turn @ _position(path, position)]),
    )


def read_centre(path: Path) -> NDArray[np.float64]:
    """(3,) where a panorama was taken, metres, from ``camera_xyz.txt``.

    Raises:
        DatasetError: it is missing or malformed.
    """
    return _position(path, _numbers(path, 3))


def panorama_rays(size: tuple[int, int]) -> NDArray[np.float64]:
    """(H, W, 3) unit vectors from the centre of a panorama through the centres of its pixels.

    The middle column looks along +y of the world, columns to its right towards +x; the top row looks up. (The
    dataset's README says that panoramas look towards -y; its viewer does not, nor do perspective views of the
    same room: see ``agreement.py``.)

    Args:
        size: height and width in pixels.
    """
    height, width = size
    azimuth = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
    elevation = (0.5 - (np.arange(height) + 0.5) / height) * np.pi
    level = np.cos(elevation)[:, None]
    return np.stack(
        [
            level * np.sin(azimuth),
            level * np.cos(azimuth),
            np.broadcast_to(np.sin(elevation)[:, None], size),
        ],
        axis=-1,
    )


def pinhole_rays(camera: Camera) -> NDArray[np.float64]:
    """(H, W, 3) vectors in the world through the centres of a camera's pixels, 1 long along its axis."""
    height, width = camera.size
    intrinsics, pose = camera.intrinsics.numpy(), camera.world_to_camera.numpy()
    x = (np.arange(width) + 0.5 - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (np.arange(height) + 0.5 - intrinsics[1, 2]) / intrinsics[1, 1]
    grid = np.stack([*np.meshgrid(x, y), np.ones(camera.size)], axis=-1)
    return grid @ pose[:3, :3]  # rows times R: the inverse rotation


def centre_of(camera: Camera) -> NDArray[np.float64]:
    """(3,) position of a camera in the world, metres."""
    pose = camera.world_to_camera.numpy()
    return -pose[:3, :3].T @ pose[:3, 3]


def _position(path: Path, millimetres: NDArray[np.float64]) -> NDArray[np.float64]:
    metres = millimetres / MM_PER_M
    if np.abs(metres).max() > FARTHEST_M:
        raise DatasetError(
            f"{path}: positions must be millimetres within {FARTHEST_M:g} m of the origin, got {millimetres}"
        )
    return metres


def _numbers(path: Path, count: int) -> NDArray[np.float64]:
    try:
        with open(path, encoding="ascii") as stream:
            text = stream.read(10_000)  # such files have a line of some hundred characters
        values = np.array([float(word) for word in text.split()], np.float64)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: is missing; unpack the download again") from error
    except ValueError as error:
        raise DatasetError(f"{path}: must hold {count} numbers: {error}") from error
    if values.size != count or not np.isfinite(values).all():
        raise DatasetError(f"{path}: must hold {count} finite numbers, holds {values.size}")
    return values
