"""The colour camera of ScanNet's sensors, which sits a few centimetres away from the depth camera.

Poses of a stream are those of the depth camera. ``colorToDepthExtrinsics`` in the ``.txt`` file of a scan is the
transform E from the colour to the depth camera, so that the colour camera's pose is pose @ E. Files without it, of
earlier scans, say nothing, and both cameras are then taken to be at the same place.

Source: Dai 2017, arXiv:1702.04405, its released files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dinomed3d.lifting import check_rigid
from pointseg.datasets.errors import DatasetError

KEY = "colorToDepthExtrinsics"
LONGEST_FILE = 1_000_000
"""Characters of a file that are read; official ones have about a thousand."""
SPREAD = 0.25
"""How far from its centre a moved pixel reaches, in pixels."""


def read_color_to_depth(path: Path) -> NDArray[np.float64] | None:
    """(4, 4) transform from the colour to the depth camera, metres; None if the file says nothing or is missing.

    Args:
        path: the ``.txt`` file of a scan, with lines ``key = value``.

    Raises:
        DatasetError: the file is not text, or the transform is not 16 numbers or not rigid.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            lines = stream.read(LONGEST_FILE).splitlines()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not text; download it again") from error
    for line in lines:
        key, equals, value = line.partition("=")
        if equals and key.strip() == KEY:
            return _matrix(path, value)
    return None


def move_depth(
    depth_m: NDArray[np.float32],
    depth_intrinsics: NDArray[np.floating],
    color_intrinsics: NDArray[np.floating],
    color_to_depth: NDArray[np.float64],
) -> NDArray[np.float32]:
    """The depth map that the colour camera would have, in an image of the same size.

    Each pixel is moved to where the colour camera sees it, and covers the pixels that the middle half of it
    touches there, so that no gaps open on surfaces; of several the nearest counts. What only the colour camera
    sees is 0, unknown.

    Args:
        depth_m: (h, w) metres, 0 where unknown.
        depth_intrinsics: (3, 3) or larger, of the depth camera.
        color_intrinsics: the same of the colour camera for images of h x w pixels.
        color_to_depth: (4, 4) transform, metres.
    """
    height, width = depth_m.shape
    rows, columns = np.nonzero(depth_m > 0)
    z = depth_m[rows, columns].astype(np.float64)
    pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(len(z))])
    to_color = np.linalg.inv(color_to_depth)
    local = np.linalg.inv(np.asarray(depth_intrinsics, np.float64)[:3, :3]) @ pixels * z
    x, y, z = to_color[:3, :3] @ local + to_color[:3, 3:]
    ahead = z > 0
    x, y, z = x[ahead], y[ahead], z[ahead]
    matrix = np.asarray(color_intrinsics, np.float64)
    u = matrix[0, 0] * x / z + matrix[0, 1] * y / z + matrix[0, 2]
    v = matrix[1, 1] * y / z + matrix[1, 2]
    farthest_first = np.argsort(-z)  # so that the nearest is written last
    u, v, z = u[farthest_first], v[farthest_first], z[farthest_first]
    moved = np.full(depth_m.shape, np.inf)
    for down in (-SPREAD, SPREAD):
        for right in (-SPREAD, SPREAD):
            inside = (0 <= u + right) & (u + right < width) & (0 <= v + down) & (v + down < height)
            layer = np.full_like(moved, np.inf)
            row, column = (v[inside] + down).astype(np.int64), (u[inside] + right).astype(np.int64)
            layer[row, column] = z[inside]
            moved = np.minimum(moved, layer)
    return np.where(np.isfinite(moved), moved, 0).astype(np.float32)


def _matrix(path: Path, text: str) -> NDArray[np.float64]:
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError as error:
        raise DatasetError(f"{path}: {KEY} must be 16 numbers: {error}") from error
    if values.size != 16:
        raise DatasetError(f"{path}: {KEY} must be 16 numbers, a 4 x 4 matrix, has {values.size}")
    matrix = values.reshape(4, 4)
    try:
        check_rigid(torch.from_numpy(matrix), KEY)
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error
    return matrix
