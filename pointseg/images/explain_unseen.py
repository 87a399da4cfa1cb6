"""What is likely wrong where images and points do not meet; computed only then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dinomed3d.lifting import Camera

if TYPE_CHECKING:
    from pointseg.images.visibility import VisibilityConfig

SAMPLE = 20_000
"""Points that are looked at, at most."""
UNIT_RATIO = 300.0
"""Depths that are so many times larger or smaller than distances are in another unit."""
TOO_NEAR_M = 0.1
"""Nearer points are stray; the ratio of depths to their distances says nothing."""
AWAY_RATIO = 30.0
"""Cameras so many times farther away than the cloud is large are of another place, or in another unit."""
NOTABLE = 0.01
"""The share of points that says that a guess is right."""


def depth_problem(camera: Camera, depth: Tensor, points: Tensor) -> str:
    """What a depth map that hides all points must be told of; "" if nothing is remarkable.

    Args:
        camera: with the field of view of the depth map.
        depth: (h, w) metres, 0 where unknown.
        points: (N, 3) in the world of the camera.
    """
    uv, distance = camera.project(_sampled(points))
    inside = _inside(camera, uv, distance) & (distance > TOO_NEAR_M)
    scale = torch.tensor([depth.shape[1] / camera.size[1], depth.shape[0] / camera.size[0]])
    column, row = (uv[inside] * scale).long().unbind(1)
    found = depth[row.clamp(max=depth.shape[0] - 1), column.clamp(max=depth.shape[1] - 1)]
    known = found > 0
    if not bool(known.any()):
        return ""
    measured, true = float(found[known].median()), float(distance[inside][known].median())
    ratio = measured / true
    if 1 / UNIT_RATIO < ratio < UNIT_RATIO:
        return ""
    told = (
        f"its depths have a median of {measured:.4g} m where the points are {true:.4g} m away, "
        f"{_times(ratio)}: they are in another unit; say how many units make a metre (depth_scale: 1000 for "
        f"millimetres)"
    )
    if ratio > 1:
        return told
    return (
        f"{told}; or the points and poses are (unit: millimetre in dataset.yaml, --unit millimetre)"
    )


def explain_no_visible_points(
    points: Tensor, cameras: Sequence[Camera], names: Sequence[str], rule: VisibilityConfig
) -> str:
    """Why no point is visible in any view, and what to look at."""
    if not cameras:
        return (
            "has no images; add them, or allow scenes without (their points count as unseen then)"
        )
    sample = _sampled(points)
    start = (
        f"none of its {len(points)} points is visible in any of {len(cameras)} views "
        f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}): "
    )
    ahead = within = in_range = 0.0
    inverted = 0.0
    for camera in cameras:
        uv, distance = camera.project(sample)
        inside = _inside(camera, uv, distance)
        ahead += float((distance > 0).float().mean()) / len(cameras)
        within += float(inside.float().mean()) / len(cameras)
        at_range = inside & (distance > rule.near_m) & (distance < rule.far)
        in_range += float(at_range.float().mean()) / len(cameras)
        inverted += _inverted_share(camera, sample) / len(cameras)
    if in_range > 0:
        return start + (
            f"{in_range:.1%} lie within the images, but the depths say that something else stands before or "
            f"behind them; look at the unit of the depth maps (depth_scale), at depth_tolerance_m "
            f"({rule.depth_tolerance_m:g} m), and whether images and depths are of this scene"
        )
    if within > 0:
        far = "any distance" if rule.far_m is None else f"{rule.far_m:g} m"
        return start + (
            f"{within:.1%} lie within the images, but none between {rule.near_m:g} m and {far} from the "
            f"camera; look at near_m and far_m, and at the unit of the points"
        )
    if inverted > NOTABLE:
        return start + (
            f"with the poses inverted {inverted:.1%} would be: the poses are the other way round, camera to "
            f"world instead of world to camera, or the reverse (pose_direction)"
        )
    middle = sample.double().mean(0)
    extent = float((sample.double() - middle).norm(dim=1).max())
    away = min(float((camera.centre - middle).norm()) for camera in cameras)
    if extent > 0 and away > AWAY_RATIO * extent:
        return start + (
            f"the nearest camera stands {away:.4g} m from the middle of the cloud, which reaches only "
            f"{extent:.4g} m: poses and points are in different units, or of different places"
        )
    return start + (
        f"{ahead:.1%} lie before the cameras, none within the images; look at the direction of the poses "
        f"(camera to world or world to camera), their unit (metres), the axes (x right, y down, z forward) "
        f"and whether images and points are of the same place"
    )


def _sampled(points: Tensor) -> Tensor:
    step = max(1, -(-len(points) // SAMPLE))
    return points[::step]


def _inside(camera: Camera, uv: Tensor, distance: Tensor) -> Tensor:
    height, width = camera.size
    edge = torch.tensor([width, height], dtype=uv.dtype)
    return (distance > 0) & (uv >= 0).all(1) & (uv < edge).all(1)


def _inverted_share(camera: Camera, points: Tensor) -> float:
    """Share of points within the image if the pose is taken the other way round."""
    other = Camera(
        intrinsics=camera.intrinsics,
        size=camera.size,
        world_to_camera=torch.linalg.inv(camera.world_to_camera),
        distortion=camera.distortion,
    )
    uv, distance = other.project(points)
    return float(_inside(other, uv, distance).float().mean())


def _times(ratio: float) -> str:
    text = f"{ratio:.0f}" if ratio > 1 else f"1/{1 / ratio:.0f}"
    for factor in (10, 100, 1000, 5000, 256, 512):
        if np.isclose(ratio, factor, rtol=0.25) or np.isclose(1 / ratio, factor, rtol=0.25):
            return f"about {text} times as much (a factor of {factor}?)"
    return f"about {text} times as much"
