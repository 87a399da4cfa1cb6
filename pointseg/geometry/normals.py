"""Normals of a cloud without any, from the plane through each point's neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

_CHUNK = 65_536  # points at once: 16 neighbours of each take 25 MB


def estimate_normals(
    coord: NDArray[np.float32],
    k: int = 16,
    sensor_position: ArrayLike | None = None,
    *,
    workers: int = 1,
) -> NDArray[np.float32]:
    """Unit normals by principal components of the k nearest neighbours, the point itself among them.

    A k-d tree finds them, since raw clouds, unlike voxel-sampled ones, may be dense without limit at
    some places. Work grows as N log N; memory, but for the tree and the result, does not grow.

    Args:
        coord: (N, 3) metres.
        k: neighbours, >= 3.
        sensor_position: (3,) metres, or (N, 3) one for each point: normals point towards it. None:
            upwards, by convention; level ones towards +y, or +x along the x axis.
        workers: threads that search; -1: all cores.

    Returns:
        (N, 3), zero where fewer than 3 points, or only points of a line, make no plane.

    Raises:
        ValueError: other shapes, coordinates that are not finite, k < 3.

    Source: Hoppe 1992, "Surface reconstruction from unorganized points", section 3.2. Differs:
        normals are oriented one by one, towards the sensor.
    """
    if coord.ndim != 2 or coord.shape[1] != 3:
        raise ValueError(f"estimate_normals: 'coord' must be (N, 3), got {coord.shape}")
    if k < 3:
        raise ValueError(f"estimate_normals: 'k' must be >= 3 points of a plane, got {k}")
    if not np.isfinite(coord).all():
        raise ValueError("estimate_normals: 'coord' must be finite; drop points without a position")
    towards = None if sensor_position is None else np.asarray(sensor_position, np.float64)
    if towards is not None and towards.shape not in ((3,), coord.shape):
        raise ValueError(
            f"estimate_normals: 'sensor_position' must be (3,) or {coord.shape}, got {towards.shape}"
        )
    normals = np.zeros(coord.shape, np.float32)
    if len(coord) < 3:
        return normals
    points = np.asarray(coord, np.float64)
    # What one step of float32 at the largest coordinate adds to a variance: below it, there is none.
    noise = float(np.spacing(np.abs(coord).max().astype(np.float32))) ** 2
    tree = cKDTree(points)
    for start in range(0, len(points), _CHUNK):
        part = slice(start, start + _CHUNK)
        near = tree.query(points[part], min(k, len(points)), workers=workers)[1]
        found = _plane_normals(points[near], noise)
        if towards is None:
            _flip(found, _upwards(found))
        else:
            seen_from = towards if towards.ndim == 1 else towards[part]
            _flip(found, np.einsum("ij,ij->i", found, seen_from - points[part]))
        normals[part] = found
    return normals


def _plane_normals(points: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """(n, 3) direction of least variance of (n, k, 3) points, zero where there is no plane."""
    centred = points - points.mean(1, keepdims=True)
    covariance = np.einsum("nki,nkj->nij", centred, centred) / points.shape[1]
    variances, directions = np.linalg.eigh(covariance)  # ascending
    plane = variances[:, 1] > np.maximum(1e-6 * variances[:, 2], noise)
    return np.where(plane[:, None], directions[:, :, 0], 0.0)


def _upwards(normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) positive where z, or else y, or else x, is."""
    x, y, z = normals.T
    level = np.abs(z) < 1e-6  # of walls, whose z is rounding
    along_x = level & (np.abs(y) < 1e-6)
    found: NDArray[np.float64] = np.where(along_x, x, np.where(level, y, z))
    return found


def _flip(normals: NDArray[np.float64], agreement: NDArray[np.float64]) -> None:
    normals[agreement < 0] *= -1
