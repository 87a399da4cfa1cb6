"""Which points of a scene its images show, and where: computed first, from points that nothing has moved yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dinomed3d.lifting import Cameras, z_buffer
from pointseg.images.explain_unseen import depth_problem, explain_no_visible_points
from pointseg.images.readers.frame import Frame, ImagesError
from pointseg.images.select_views import select_views
from pointseg.images.visibility import VisibilityConfig
from pointseg.scene import Scene

CHUNK = 1 << 18
"""Points that are projected at a time."""


def compute_visibility(
    scene: Scene,
    frames: Sequence[Frame],
    rule: VisibilityConfig,
    size: tuple[int, int],
    *,
    allow_unseen: bool = False,
) -> Scene:
    """The scene with ``image_coord`` and ``image_mask``: where its points lie in each of V images.

    Only depth maps are read, one at a time; memory is that of the result.

    Args:
        scene: as its dataset loads it: ``coord + origin`` are the world that the cameras stand in.
        frames: V views.
        rule: when a point is visible.
        size: height and width of the images that positions refer to, whatever size they are stored in.
        allow_unseen: a scene without images, or that none of them shows, is no error.

    Returns:
        ``image_coord`` (N, V, 2) float32 pixels (u right, v down), 0 where not visible; ``image_mask``
        (N, V).

    Raises:
        UserError: no point is visible in any view; a depth map is missing, damaged, or in another unit.
    """
    count, views = len(scene), len(frames)
    coord = np.zeros((count, views, 2), np.float32)
    mask = np.zeros((count, views), np.bool_)
    points = torch.from_numpy(np.ascontiguousarray(scene.coord))
    origin = torch.from_numpy(np.asarray(scene.origin, np.float64))
    edge = torch.tensor([size[1], size[0]])
    cameras = [frame.camera.moved(origin).resized(*size) for frame in frames]
    for view, (frame, camera) in enumerate(zip(frames, cameras, strict=True)):
        read = None if rule.occlusion == "none" else frame.read_depth()
        depth = None if read is None else torch.from_numpy(read)
        occluder = depth
        if depth is None and rule.occlusion == "z-buffer":
            occluder = z_buffer(camera, points)
        seeing = Cameras(
            [camera],
            depths=[occluder],
            near=rule.near_m,
            far=rule.far,
            depth_tolerance=rule.depth_tolerance_m,
        )
        for start in range(0, count, CHUNK):
            uv, visible, _ = seeing.project(0, points[start : start + CHUNK])
            exact = uv.to(torch.float32)
            visible = visible & (exact < edge).all(1)  # what rounding moved onto the edge
            coord[start : start + CHUNK, view] = torch.where(visible[:, None], exact, 0).numpy()
            mask[start : start + CHUNK, view] = visible.numpy()
        if depth is not None and not mask[:, view].any():
            problem = depth_problem(camera, depth, points)
            if problem:
                raise ImagesError(f"{frame.depth}: {problem} (scene {scene.name})")
    if not allow_unseen and count and not mask.any():
        raise ImagesError(
            f"scene {scene.name}: {explain_no_visible_points(points, cameras, [f.name for f in frames], rule)}"
        )
    return scene.with_fields(image_coord=coord, image_mask=mask)


def candidate_frames(scene: Scene, frames: Sequence[Frame], count: int | None) -> tuple[Frame, ...]:
    """The frames of a scene that its views are chosen from where not all can be kept, as in a cache.

    Args:
        scene: as for ``compute_visibility``.
        frames: all of its.
        count: how many at most; None: all.

    Returns:
        All where there are no more; else evenly spread ones of those that some of its points lie in.
    """
    if count is None or len(frames) <= count:
        return tuple(frames)
    showing = [frames[index] for index in frames_in_view(scene, frames)] or frames
    return tuple(showing[index] for index in select_views(showing, count))


def frames_in_view(scene: Scene, frames: Sequence[Frame], *, sample: int = 2000) -> tuple[int, ...]:
    """Indices of the frames that some points of a scene lie in; whether these are hidden is not asked.

    Views are better chosen from these where a scene is a small part of what its images show.

    Args:
        scene: as for ``compute_visibility``.
        frames: any number.
        sample: how many of its points are looked at, evenly spread in their order.
    """
    points = torch.from_numpy(scene.coord[:: max(1, -(-len(scene) // sample))])
    origin = torch.from_numpy(np.asarray(scene.origin, np.float64))
    found = []
    for number, frame in enumerate(frames):
        _, inside, _ = Cameras([frame.camera.moved(origin)]).project(0, points)
        if bool(inside.any()):
            found.append(number)
    return tuple(found)
