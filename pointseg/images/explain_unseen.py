"""Explains why no point of a scene is visible in its images; computed only when that happens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dinomed3d.lifting import Camera, depth_at, in_image

if TYPE_CHECKING:
    from pointseg.images.visibility import VisibilityConfig

MAX_POINTS = 20_000
"""Points that are projected, at most."""
UNIT_RATIO = 300.0
"""A depth map whose depths differ from the distances by this factor is in another unit."""
TOO_NEAR_M = 0.1
"""Points nearer than this are ignored where depths are compared: they are outliers."""
AWAY_RATIO = 30.0
"""Cameras farther from the cloud than this many of its radii belong to another place or unit."""
NOTABLE_SHARE = 0.01
"""Share of the points inside the images from which an inverted pose is suspected."""


def depth_problem(camera: Camera, depth: Tensor, points: Tensor) -> str:
    """Explain why a depth map occludes every point; "" if its depths have the points' magnitude.

    Args:
        camera: with the field of view of the depth map.
        depth: (h, w) metres, 0 where unknown.
        points: (N, 3) in the world of the camera.
    """
    uv, distance = camera.project(_subsample(points))
    inside = in_image(uv, camera.size) & (distance > TOO_NEAR_M)
    measured = depth_at(depth, uv[inside], camera.size)
    known = measured > 0
    if not bool(known.any()):
        return ""
    found, expected = float(measured[known].median()), float(distance[inside][known].median())
    ratio = found / expected
    if 1 / UNIT_RATIO < ratio < UNIT_RATIO:
        return ""
    problem = (
        f"its median depth is {found:.4g} m where the points are {expected:.4g} m away, {_times(ratio)}: it is "
        f"in another unit; set depth_scale to its units per metre (1000 for millimetres)"
    )
    if ratio > 1:
        return problem
    return f"{problem}, or set the unit of the points and poses (unit: millimetre in dataset.yaml, --unit millimetre)"


def explain_no_visible_points(
    points: Tensor,
    cameras: Sequence[Camera],
    names: Sequence[str],
    visibility: VisibilityConfig,
) -> str:
    """Why no point is visible in any view, and what to check."""
    if not cameras:
        return "has no images; add them, or allow scenes without images"
    sample = _subsample(points)
    start = (
        f"none of its {len(points)} points is visible in any of {len(cameras)} views "
        f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}): "
    )
    shares = np.mean([_shares(camera, sample, visibility) for camera in cameras], axis=0)
    ahead, inside, in_range, inverted = shares.tolist()
    if in_range > 0:
        return start + (
            f"{in_range:.1%} lie inside the images, but at another depth than the depth maps have there; check "
            f"depth_scale, depth_tolerance_m ({visibility.depth_tolerance_m:g}), and whether images and depth "
            f"maps belong to this scene"
        )
    if inside > 0:
        far = "any distance" if visibility.far_m is None else f"{visibility.far_m:g} m"
        return start + (
            f"{inside:.1%} lie inside the images, but none between {visibility.near_m:g} m and {far} from the "
            f"camera; check near_m, far_m and the unit of the points"
        )
    if inverted > NOTABLE_SHARE:
        return start + (
            f"{inverted:.1%} lie inside with inverted poses: the poses are camera to world instead of world to "
            f"camera, or the reverse (pose_direction)"
        )
    middle = sample.double().mean(0)
    extent = float((sample.double() - middle).norm(dim=1).max())
    away = min(float((camera.centre - middle).norm()) for camera in cameras)
    if extent > 0 and away > AWAY_RATIO * extent:
        return start + (
            f"the nearest camera is {away:.4g} m from the middle of the cloud, whose radius is only "
            f"{extent:.4g} m: poses and points are in different units or of different places"
        )
    return start + (
        f"{ahead:.1%} lie in front of the cameras, none inside the images; check the direction of the poses "
        f"(camera to world or world to camera), their unit (metres), the camera axes (x right, y down, z "
        f"forward), and whether images and points are of the same place"
    )


def _subsample(points: Tensor) -> Tensor:
    return points[:: max(1, -(-len(points) // MAX_POINTS))]


def _shares(
    camera: Camera, points: Tensor, visibility: VisibilityConfig
) -> tuple[float, float, float, float]:
    """Shares of points in front of a camera, in its image, also in range; in the image if inverted."""
    uv, distance = camera.project(points)
    inside = in_image(uv, camera.size)
    in_range = inside & (distance > visibility.near_m) & (distance < visibility.far)
    other = replace(camera, world_to_camera=torch.linalg.inv(camera.world_to_camera))
    inverted = in_image(other.project(points)[0], other.size)
    found = [float(each.float().mean()) for each in (distance > 0, inside, in_range, inverted)]
    return found[0], found[1], found[2], found[3]


def _times(ratio: float) -> str:
    text = f"{ratio:.0f}" if ratio > 1 else f"1/{1 / ratio:.0f}"
    for factor in (10, 100, 1000, 5000, 256, 512):
        if np.isclose(ratio, factor, rtol=0.25) or np.isclose(1 / ratio, factor, rtol=0.25):
            return f"about {text} times as much (a factor of {factor}?)"
    return f"about {text} times as much"
