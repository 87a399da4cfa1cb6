"""How well a cloud and an image agree under one pose: points in view, depths, colours, ground."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.lifting import Camera, depth_at, z_buffer
from pointseg.images.projection import projector_of
from pointseg.images.visibility import VisibilityConfig

MIN_POINTS = 200
"""Points that a statistic must rest on."""
BEHIND_SHARE = 0.3
"""Share of points in front of a depth map that shows that it is not of this image."""
RANKED_POINTS = 20_000
"""Points, roughly, of which the rank correlation is computed."""
MOST_GAP, GAP_PART = 64, 12
"""Gaps between points that a rendered depth map closes: pixels, and part of the image's longer side, at most."""
MAX_RENDERED_PIXELS = 1 << 21
"""Pixels of a depth map rendered from the cloud, at most; those of a full HD image fit."""


@dataclass(frozen=True, kw_only=True)
class ProjectedPoints:
    """The points of a cloud projected into one view."""

    uv: Tensor
    """(N, 2) pixels."""
    depth: Tensor
    """(N,) metres along the camera's axis."""
    inside: Tensor
    """(N,) bool, inside the image and the range of distances."""
    visible: Tensor
    """(N,) bool, inside and not occluded."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement statistics for one view and pose; None without enough points."""

    points: int
    """Number of points of the cloud."""
    inside: int
    """Number of points inside the image."""
    visible: int
    """Number of points that are not occluded either."""
    depth_known: int = 0
    """Number of points inside the image where the depth map has a value."""
    depth_fits: int = 0
    """Number of these whose distance is that of the depth map, within the tolerance."""
    depth_error_m: float | None = None
    """Median difference between the depth map and the points' distances."""
    color_error: float | None = None
    """Median difference between the colours of points and their pixels, 0 to 255, mean over channels."""
    chance_color_error: float | None = None
    """Same after randomly permuting pixels (chance level)."""
    ground_correlation: float | None = None
    """Rank correlation of pixel row and distance: near -1 where an upright camera sees the ground."""
    upright: float | None = None
    """Cosine of the angle between the image's downward axis and gravity: 1 upright, 0 looking straight down."""


def project_points(
    camera: Camera, points: Tensor, visibility: VisibilityConfig, *, depth: Tensor | None = None
) -> ProjectedPoints:
    """Project a cloud into a view.

    Args:
        camera: in the world of the points.
        points: (N, 3).
        visibility: range of distances and depth tolerance.
        depth: (h, w) metres, the depth map that occludes points; None: nothing does.
    """
    uv, inside, distance = projector_of(camera, visibility, None).project(0, points)
    visible = inside
    if depth is not None:
        visible = projector_of(camera, visibility, depth).project(0, points)[1]
    return ProjectedPoints(uv=uv, depth=distance, inside=inside, visible=visible)


def render_depth_map(camera: Camera, points: Tensor) -> Tensor:
    """Render a depth map from the cloud, smaller than the image where that is large.

    Args:
        camera: in the world of the points.
        points: (N, 3), all of them.

    Returns:
        (h, w) metres, at most ``MAX_RENDERED_PIXELS``, with the field of view of the image; 0 where unknown.
    """
    height, width = camera.size
    ratio = math.sqrt(MAX_RENDERED_PIXELS / (height * width))
    if ratio < 1:
        camera = camera.resized(max(1, int(height * ratio)), max(1, int(width * ratio)))
    # what lies far outside a small image is at a grazing angle: near, with wide gaps that would hide all of it
    return z_buffer(camera, points, limit=min(MOST_GAP, max(4, max(camera.size) // GAP_PART)))


def compute_agreement(
    projected: ProjectedPoints,
    camera: Camera,
    *,
    image: NDArray[np.uint8] | None,
    depth: Tensor | None,
    color: NDArray[np.float32] | None,
    depth_tolerance_m: float,
    up: Tensor | None = None,
) -> Agreement:
    """The statistics of one view.

    Args:
        projected: the points in the view.
        camera: gives the size of the image.
        image: (H, W, 3) of that size.
        depth: (h, w) metres, 0 where unknown.
        color: (N, 3) of the points, 0 to 255.
        depth_tolerance_m: how far points may be off the depth map.
        up: (3,) float64 direction of the points that is up; None: not known.
    """
    known, error = 0, torch.zeros(0)
    if depth is not None:
        measured, distance = depth_pairs(projected, camera, depth)
        known, error = len(measured), (measured - distance).abs()
    color_error = chance = None
    if image is not None and color is not None and int(projected.visible.sum()) >= MIN_POINTS:
        pixels = pixel_colors(projected, image)
        own = color[projected.visible.numpy()]
        color_error = float(np.median(np.abs(pixels - own).mean(1)))
        order = np.random.default_rng(0).permutation(len(pixels))
        chance = float(np.median(np.abs(pixels[order] - own).mean(1)))
    return Agreement(
        points=len(projected.inside),
        inside=int(projected.inside.sum()),
        visible=int(projected.visible.sum()),
        depth_known=known,
        depth_fits=int((error <= depth_tolerance_m).sum()),
        depth_error_m=float(error.median()) if known >= MIN_POINTS else None,
        color_error=color_error,
        chance_color_error=chance,
        ground_correlation=_ground_correlation(projected),
        upright=None if up is None else -float(camera.world_to_camera[1, :3] @ up),
    )


def pixel_colors(projected: ProjectedPoints, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(M, 3) colours of the pixels of the visible points."""
    height, width = image.shape[:2]
    column, row = projected.uv[projected.visible].long().unbind(1)
    rows, columns = row.clamp(max=height - 1).numpy(), column.clamp(max=width - 1).numpy()
    return np.asarray(image[rows, columns], np.float32)


def depth_pairs(projected: ProjectedPoints, camera: Camera, depth: Tensor) -> tuple[Tensor, Tensor]:
    """(M,) depths of a depth map and (M,) distances of the points there, where both are known."""
    measured = depth_at(depth, projected.uv[projected.inside], camera.size).double()
    known = (measured > 0) & measured.isfinite()
    return measured[known], projected.depth[projected.inside][known].double()


def is_behind_points(
    projected: ProjectedPoints, camera: Camera, depth: Tensor, tolerance_m: float
) -> bool:
    """Whether a depth map lies behind many points: no wall occludes these, the map does not fit.

    Args:
        projected: the points in the view.
        camera: gives the size of the image.
        depth: (h, w) metres, 0 where unknown.
        tolerance_m: how far points may be off the depth map.
    """
    measured, distance = depth_pairs(projected, camera, depth)
    behind = measured > distance + tolerance_m
    return bool(len(measured)) and float(behind.float().mean()) > BEHIND_SHARE


def _ground_correlation(projected: ProjectedPoints) -> float | None:
    """Spearman's rank correlation of rows and distances of the points inside the image."""
    step = max(1, int(projected.inside.sum()) // RANKED_POINTS)
    row = projected.uv[projected.inside][::step, 1].numpy()
    depth = projected.depth[projected.inside][::step].numpy()
    if len(row) < MIN_POINTS or np.ptp(row) == 0 or np.ptp(depth) == 0:
        return None
    ranks = np.stack([np.argsort(np.argsort(values)) for values in (row, depth)])
    return float(np.asarray(np.corrcoef(ranks))[0, 1])
