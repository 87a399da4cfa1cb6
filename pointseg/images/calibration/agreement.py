"""How well a cloud and an image agree under one pose: what is in view, depths, colours, what lies lower."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.lifting import Camera, Cameras, z_buffer

if TYPE_CHECKING:
    from pointseg.images.visibility import VisibilityConfig

ENOUGH = 200
"""Points that a figure must rest on."""
RANKED = 20_000
"""Points whose order is looked at, roughly."""
LARGEST_MAP = 1 << 21
"""Pixels of the depth map that is made of a cloud; those of a full HD image fit."""


@dataclass(frozen=True, kw_only=True)
class ProjectedPoints:
    """Which points of a cloud one camera sees, and where."""

    uv: Tensor
    """(N, 2) pixels."""
    depth: Tensor
    """(N,) metres along the camera's axis."""
    inside: Tensor
    """(N,) bool, in the image and in the range of depths."""
    visible: Tensor
    """(N,) bool, and hidden by nothing."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Figures of one view under one pose; None where there is nothing to tell them from."""

    points: int
    """Of the cloud."""
    inside: int
    """In the image."""
    visible: int
    """And hidden by nothing."""
    depth_known: int = 0
    """In the image where its depth map knows something."""
    depth_fits: int = 0
    """Of these, as far away as the depth map says, to within the margin."""
    depth_off_m: float | None = None
    """Median difference between the depth map and the points' depths."""
    color_off: float | None = None
    """Median difference between the colours of points and of their pixels, 0 to 255, mean over channels."""
    color_chance: float | None = None
    """The same with pixels dealt out among the points at random."""
    lower_is_nearer: float | None = None
    """Rank correlation of rows and depths: near -1 where an upright camera stands over ground."""


def project_points(
    camera: Camera, points: Tensor, visibility: VisibilityConfig, *, occluder: Tensor | None = None
) -> ProjectedPoints:
    """Project a cloud into a view.

    Args:
        camera: of the points' world.
        points: (N, 3).
        visibility: the range of depths, and the margin.
        occluder: (h, w) depths that hide what lies elsewhere; None: nothing is hidden.
    """
    views = Cameras(
        [camera],
        near=visibility.near_m,
        far=visibility.far,
        depth_tolerance=visibility.depth_tolerance_m,
    )
    uv, inside, depth = views.project(0, points)
    visible = inside
    if occluder is not None:
        behind = Cameras(
            [camera],
            depths=[occluder],
            near=visibility.near_m,
            far=visibility.far,
            depth_tolerance=visibility.depth_tolerance_m,
        )
        visible = behind.project(0, points)[1]
    return ProjectedPoints(uv=uv, depth=depth, inside=inside, visible=visible)


def render_depth_map(camera: Camera, points: Tensor) -> Tensor:
    """A depth map of the cloud itself, for ``project_points``: smaller than the image where that is large.

    What is hidden is the same but for outlines, to a pixel of the map; time and memory go with its pixels.

    Args:
        camera: of the points' world.
        points: (N, 3), all of them.

    Returns:
        (h, w) metres, ``LARGEST_MAP`` pixels at most, with the field of view of the image; 0 where nothing
        is known.
    """
    height, width = camera.size
    ratio = math.sqrt(LARGEST_MAP / (height * width))
    if ratio < 1:
        camera = camera.resized(max(1, int(height * ratio)), max(1, int(width * ratio)))
    return z_buffer(camera, points)


def compute_agreement(
    shown: ProjectedPoints,
    camera: Camera,
    *,
    image: NDArray[np.uint8] | None,
    depth: Tensor | None,
    color: NDArray[np.float32] | None,
    depth_tolerance_m: float,
) -> Agreement:
    """The figures of one view.

    Args:
        shown: what the camera sees.
        camera: its size counts.
        image: (H, W, 3) of that size.
        depth: (h, w) metres, 0 where unknown.
        color: (N, 3) of the points, 0 to 255.
        depth_tolerance_m: how far points may be off the depth map.
    """
    known, off = _depth_off(shown, camera, depth)
    color_off = chance = None
    if image is not None and color is not None and int(shown.visible.sum()) >= ENOUGH:
        pixels = pixels_of(shown, image)
        mine = color[shown.visible.numpy()]
        color_off = float(np.median(np.abs(pixels - mine).mean(1)))
        order = np.random.default_rng(0).permutation(len(pixels))
        chance = float(np.median(np.abs(pixels[order] - mine).mean(1)))
    return Agreement(
        points=len(shown.inside),
        inside=int(shown.inside.sum()),
        visible=int(shown.visible.sum()),
        depth_known=known,
        depth_fits=int((off <= depth_tolerance_m).sum()),
        depth_off_m=float(off.median()) if known >= ENOUGH else None,
        color_off=color_off,
        color_chance=chance,
        lower_is_nearer=_rank_correlation(shown),
    )


def pixels_of(shown: ProjectedPoints, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(M, 3) colours of the pixels that the visible points fall into."""
    height, width = image.shape[:2]
    column, row = shown.uv[shown.visible].long().unbind(1)
    rows, columns = row.clamp(max=height - 1).numpy(), column.clamp(max=width - 1).numpy()
    return np.asarray(image[rows, columns], np.float32)


def depth_pairs(shown: ProjectedPoints, camera: Camera, depth: Tensor) -> tuple[Tensor, Tensor]:
    """(M,) what a depth map says and (M,) what the points do, where both are known."""
    rows, columns = depth.shape
    height, width = camera.size
    u, v = shown.uv[shown.inside].unbind(1)
    row = (v * (rows / height)).long().clamp(max=rows - 1)
    column = (u * (columns / width)).long().clamp(max=columns - 1)
    said = depth[row, column].double()
    known = (said > 0) & said.isfinite()
    return said[known], shown.depth[shown.inside][known].double()


def _depth_off(shown: ProjectedPoints, camera: Camera, depth: Tensor | None) -> tuple[int, Tensor]:
    if depth is None:
        return 0, torch.zeros(0)
    said, true = depth_pairs(shown, camera, depth)
    return len(said), (said - true).abs()


def _rank_correlation(shown: ProjectedPoints) -> float | None:
    """Spearman's, of rows and depths of all points in the image."""
    step = max(1, int(shown.inside.sum()) // RANKED)
    row = shown.uv[shown.inside][::step, 1].numpy()
    depth = shown.depth[shown.inside][::step].numpy()
    if len(row) < ENOUGH or np.ptp(row) == 0 or np.ptp(depth) == 0:
        return None
    ranks = np.stack([np.argsort(np.argsort(values)) for values in (row, depth)])
    centred = ranks - (len(row) - 1) / 2
    return float((centred[0] * centred[1]).sum() / (centred[0] ** 2).sum())
