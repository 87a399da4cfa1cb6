"""A depth map of the cloud itself, for occlusion tests without a sensor's depth maps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dinomed3d.lifting.camera import Camera
from dinomed3d.lifting.posed_cameras import in_image

_OCTAVES = 16
_NEAREST = 2.0**-4
"""Lower end of the first octave of depth, metres; nearer points belong to it. An octave has one gap."""
_STILL_GROWING = 1.25
"""Points still have gaps between them while cells of twice the side cover this many times the area."""


def z_buffer(
    camera: Camera,
    points: Tensor,
    *,
    cell: float | None = None,
    limit: int = 64,
    chunk: int = 1 << 17,
) -> Tensor:
    """Depth of the nearest surface at each pixel, estimated from the points of a cloud.

    Points have gaps between them, so each covers a rectangle that closes them. A pixel is occluded if
    all four quadrants around it hold a nearer point within one gap: surfaces seen at a grazing angle,
    whose points are nearer on one side and farther on the other, do not occlude themselves, and
    outlines do not grow. The depth at a point's own pixel is never larger than the point's, so that
    with ``Cameras(..., depths=...)`` a point is visible unless another lies before it by more than the
    depth tolerance. As a pixel has one depth, ground that recedes by more than the tolerance within
    one pixel occludes its farther points; a larger map (``camera.resized``) avoids that.

    Needs memory of about 30 maps of the image with its surroundings, and of ``chunk`` points. For
    large images a smaller map is enough: ``z_buffer(camera.resized(h, w), ...)``.

    Args:
        camera: the view.
        points: (N, 3) of the whole cloud, in the camera's world.
        cell: metres between neighbouring points (the size of the voxels of a sampled cloud). None:
            estimated from the points in the image, separately for each octave of depth and for rows
            and columns: the gaps of a LiDAR scan grow with the distance, and are wider across its
            rings than along them.
        limit: largest gap that is closed, pixels; points up to this far outside the image count.
        chunk: points projected at a time.

    Returns:
        (H, W) float32 depth along z; 0 where no point is near.

    Raises:
        ValueError: ``cell`` or ``limit`` is not positive.
    """
    if cell is not None and not 0 < cell < math.inf:
        raise ValueError(f"z_buffer: 'cell' must be positive or None, got {cell}")
    if limit < 1:
        raise ValueError(f"z_buffer: 'limit' must be at least 1, got {limit}")
    height, width = camera.size
    layers = _layers(camera, points, limit, chunk)
    focal = float(torch.stack([camera.intrinsics[0, 0], camera.intrinsics[1, 1]]).abs().max())
    quadrants = torch.full((4, *layers.shape[1:]), math.inf, device=points.device)
    for octave, layer in enumerate(layers):
        known = layer.isfinite()
        if not known.any():
            continue
        if cell is None:
            rows, columns = _gaps(known, limit)
        else:
            rows = columns = min(limit, math.ceil(cell * focal / (_NEAREST * 2**octave)))
        for quadrant, nearest in zip(quadrants, _quadrants(layer, rows, columns), strict=True):
            torch.minimum(quadrant, nearest, out=quadrant)
    depth = torch.minimum(layers.amin(0), quadrants.amax(0))
    inner = slice(limit, limit + height), slice(limit, limit + width)
    depth = depth[inner]
    return torch.where(depth.isfinite(), depth, 0)


def _layers(camera: Camera, points: Tensor, limit: int, chunk: int) -> Tensor:
    """(octaves, H + 2 limit, W + 2 limit) depths of the nearest points themselves, else infinite."""
    height, width = camera.size[0] + 2 * limit, camera.size[1] + 2 * limit
    layers = torch.full((_OCTAVES * height * width,), math.inf, device=points.device)
    for part in points.split(chunk):
        uv, depth = camera.project(part)
        places = uv.floor() + limit
        index = torch.nonzero(in_image(places, (height, width))).squeeze(1)
        column, row = places.unbind(-1)
        depth = depth[index].float()
        octave = (depth / _NEAREST).log2().floor().clamp(0, _OCTAVES - 1).long()
        cells = (octave * height + row[index].long()) * width + column[index].long()
        layers.scatter_reduce_(0, cells, depth, "amin")
    return layers.view(_OCTAVES, height, width)


def _gaps(known: Tensor, limit: int) -> tuple[int, int]:
    """Rows and columns between neighbouring points of one layer.

    Cells smaller than the gaps cover more area the larger they are; larger ones all cover the same
    surface. Cells grow along the axis that helps most, because the rings of a LiDAR are dense along
    and sparse across.
    """
    cells = known[None, None].float()
    gaps = [1, 1]
    while True:
        covered = float(cells.sum())
        growth, _, dim, larger = max(
            (2 * float(larger.sum()) / covered, -gaps[dim], dim, larger)
            for dim, sides in enumerate(((2, 1), (1, 2)))
            for larger in (F.max_pool2d(cells, sides, ceil_mode=True),)
        )
        if growth < _STILL_GROWING or 2 * gaps[dim] > limit:
            return min(gaps[0] + 1, limit), min(gaps[1] + 1, limit)  # neighbours are not aligned
        gaps[dim] *= 2
        cells = larger


def _quadrants(layer: Tensor, rows: int, columns: int) -> tuple[Tensor, ...]:
    """Nearest depth in each of the four quadrants around every pixel, within one gap.

    Each quadrant includes one of the four half axes, so that no point is in two quadrants.
    """
    above, left = _least(layer, rows, 0, after=False), _least(layer, columns, 1, after=False)
    below, right = _least(layer, rows, 0, after=True), _least(layer, columns, 1, after=True)
    return (
        _shifted(_least(above, columns, 1, after=False), 0, after=False),
        _shifted(_least(right, rows, 0, after=False), 1, after=True),
        _shifted(_least(below, columns, 1, after=True), 0, after=True),
        _shifted(_least(left, rows, 0, after=True), 1, after=False),
    )


def _least(image: Tensor, reach: int, dim: int, *, after: bool) -> Tensor:
    """Minimum over ``reach`` positions along ``dim``: each one and those after (or before) it."""
    covered = 1
    size = image.shape[dim]
    while covered < reach:
        step = min(covered, reach - covered)
        first, second = image.narrow(dim, 0, size - step), image.narrow(dim, step, size - step)
        image = image.clone()
        image.narrow(dim, 0 if after else step, size - step).copy_(torch.minimum(first, second))
        covered += step
    return image


def _shifted(image: Tensor, dim: int, *, after: bool) -> Tensor:
    """Shift by one position, so that each holds the next (or previous) one's value."""
    return image.roll(-1 if after else 1, dim)
