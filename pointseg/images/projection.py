"""Computes which points of a scene are visible in its images, and at which pixels.

Comes first, on the coordinates as loaded, before any augmentation moves them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dinomed3d.lifting import Camera, Cameras, z_buffer
from pointseg.images.explain_unseen import depth_problem, explain_no_visible_points
from pointseg.images.projected import EveryView, Projected
from pointseg.images.readers.frame import Frame, ImagesError
from pointseg.images.select_views import select_views
from pointseg.images.visibility import VisibilityConfig
from pointseg.scene import Scene

CHUNK = 1 << 18
"""Points that are projected at a time."""


def compute_visibility(
    scene: Scene,
    frames: Sequence[Frame],
    visibility: VisibilityConfig,
    size: tuple[int, int],
    *,
    keep: Projected | None = None,
    allow_none_visible: bool = False,
) -> Scene:
    """Project the points of a scene into V images.

    Only depth maps are read, one at a time; memory is that of the result. Where a frame has a ``projection`` of
    its own, that is taken.

    Args:
        scene: as its dataset loads it; ``coord + origin`` are in the cameras' world.
        frames: V views.
        visibility: when a point is visible.
        size: height and width of the resized images, in whose pixels positions are returned.
        keep: collects the projections, in the order of the views; None: ``EveryView``.
        allow_none_visible: whether a scene without visible points is accepted.

    Returns:
        The scene with the fields that ``keep`` collects. Of ``EveryView``: ``image_coord`` (N, V, 2), float32
        pixels (u right, v down), 0 where not visible; and ``image_mask`` (N, V) bool, visible.

    Raises:
        UserError: no point is visible in any view; a depth map is missing, damaged, or in another unit.

    Source: DITR (Knaebel et al. 2025), section 3: a point is visible where it projects into the image within
    the range of distances and its distance agrees with the depth map.
    """
    count = len(scene)
    keep = EveryView(count, len(frames)) if keep is None else keep
    any_visible = False
    points = torch.from_numpy(np.ascontiguousarray(scene.coord))
    edge = torch.tensor([size[1], size[0]])
    cameras = [camera_near(scene, frame.camera).resized(*size) for frame in frames]
    for view, (frame, camera) in enumerate(zip(frames, cameras, strict=True)):
        read = None if visibility.occlusion == "none" else frame.read_depth()
        depth = None if read is None else torch.from_numpy(read)
        occluder = depth
        if depth is None and visibility.occlusion == "z-buffer":
            occluder = z_buffer(camera, points)
        projector = projector_of(camera, visibility, occluder)
        given = _given_projection(frame, size, count)
        shows = False
        for start in range(0, count, CHUNK):
            uv, visible, distance = projector.project(0, points[start : start + CHUNK])
            if given is not None:
                uv, visible = (values[start : start + CHUNK] for values in given)
            exact = uv.to(torch.float32)
            visible = visible & (exact < edge).all(1)  # float32 may round onto the image's edge
            keep.add(view, start, exact, visible, distance)
            shows = shows or bool(visible.any())
        any_visible = any_visible or shows
        if depth is not None and not shows:
            problem = depth_problem(camera, depth, points)
            if problem:
                raise ImagesError(f"{frame.depth}: {problem} (scene {scene.name})")
    if not allow_none_visible and count and not any_visible:
        names = [frame.name for frame in frames]
        problem = explain_no_visible_points(points, cameras, names, visibility)
        raise ImagesError(f"scene {scene.name}: {problem}")
    return keep.add_to(scene)


def _given_projection(
    frame: Frame, size: tuple[int, int], count: int
) -> tuple[Tensor, Tensor] | None:
    """(N, 2) pixels of the resized image and (N,) visible, where the dataset says where points are; else None.

    Range and occlusion are not tested: the dataset says what is seen.
    """
    if frame.projection is None:
        return None
    pixel, visible = frame.projection.read(count)
    factors = [size[1] / frame.camera.size[1], size[0] / frame.camera.size[0]]
    uv = torch.from_numpy(pixel).double() * torch.tensor(factors, dtype=torch.float64)
    return uv, torch.from_numpy(visible) & (uv >= 0).all(1)


def camera_near(scene: Scene, camera: Camera) -> Camera:
    """A camera of the world for the ``coord`` of a scene, which are relative to its origin."""
    return camera.moved(torch.from_numpy(np.asarray(scene.origin, np.float64)))


def projector_of(camera: Camera, visibility: VisibilityConfig, depth: Tensor | None) -> Cameras:
    """The projector of one view.

    Args:
        camera: the view.
        visibility: range of distances and depth tolerance.
        depth: (h, w) metres, the depth map that occludes points; None: nothing does.
    """
    return Cameras(
        [camera],
        depths=[depth],
        near=visibility.near_m,
        far=visibility.far,
        depth_tolerance=visibility.depth_tolerance_m,
    )


def candidate_frames(scene: Scene, frames: Sequence[Frame], count: int | None) -> tuple[Frame, ...]:
    """At most ``count`` frames of a scene to select views from, for a feature cache.

    Args:
        scene: as for ``compute_visibility``.
        frames: all frames of the scene.
        count: how many at most; None: all.

    Returns:
        All frames if there are no more; else evenly spaced ones of those that have points in view.
    """
    if count is None or len(frames) <= count:
        return tuple(frames)
    showing = [frames[index] for index in frames_in_view(scene, frames)] or frames
    return tuple(showing[index] for index in select_views(showing, count))


def frames_in_view(scene: Scene, frames: Sequence[Frame], *, count: int = 2000) -> tuple[int, ...]:
    """Indices of the frames that have points of a scene in view, occluded or not.

    Views are better selected from these where a scene is a small part of what the images show.

    Args:
        scene: as for ``compute_visibility``.
        frames: any number.
        count: number of points that are projected, evenly spaced in their order.
    """
    points = torch.from_numpy(scene.coord[:: max(1, -(-len(scene) // count))])
    projector = Cameras([camera_near(scene, frame.camera) for frame in frames])
    return tuple(
        view for view in range(len(frames)) if bool(projector.project(view, points)[1].any())
    )
