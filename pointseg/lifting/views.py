"""The views of a cloud: which points each shows, its feature map, and features fused from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.lifting import (
    FeatureMap,
    Last,
    Max,
    Mean,
    Nearest,
    ViewFusion,
    sample_bilinear,
    sample_nearest,
)
from pointseg.images.explain_unseen import explain_no_visible_points
from pointseg.images.projection import camera_near, compute_visibility
from pointseg.images.readers.frame import Frame, ImagesError
from pointseg.images.visibility import VisibilityConfig
from pointseg.lifting.kept_arrays import KeptArrays
from pointseg.scene import Scene

FUSIONS: dict[str, Callable[[], ViewFusion]] = {
    "mean": Mean,
    "last": Last,
    "nearest": Nearest,
    "max": Max,
}
SAMPLINGS: dict[str, Callable[[FeatureMap, int | Tensor, Tensor], Tensor]] = {
    "bilinear": sample_bilinear,
    "nearest": sample_nearest,
}
MapOf = Callable[[int], FeatureMap]
"""From the number of a view to its feature map, of one image."""
Step = Callable[[int, int], None]
"""Called with how many of how many are done."""


class Shown(NamedTuple):
    """The points that a view shows."""

    rows: NDArray[np.int32]
    """(M,) their rows in the cloud, increasing."""
    uv: NDArray[np.float32]
    """(M, 2) their pixels in the resized image."""
    distance: NDArray[np.float32]
    """(M,) metres along the camera's axis."""


@dataclass(frozen=True)
class Views:
    """Views that show points of a cloud, at least one each."""

    frames: tuple[Frame, ...]
    """V posed images."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width to which each is resized, pixels."""
    kept: KeptArrays
    """What each shows."""
    counts: NDArray[np.int32]
    """(N,) the number of views that show each point of the cloud."""

    def __len__(self) -> int:
        return len(self.frames)

    def shown(self, view: int) -> Shown:
        """The points that a view shows."""
        return Shown(*(self.kept[3 * view + part] for part in range(3)))

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(N,) whether any view shows a point."""
        return self.counts > 0


def find_views(
    scene: Scene,
    frames: Sequence[Frame],
    visibility: VisibilityConfig,
    size_of: Callable[[tuple[int, int]], tuple[int, int]],
    kept: KeptArrays,
    *,
    step: Step = lambda done, total: None,
) -> Views:
    """Project a cloud into its images, one after the other; no image is read, depth maps are.

    Args:
        scene: N points with positions; ``coord + origin`` are in the cameras' world, metres.
        frames: the images.
        visibility: when a point is visible.
        size_of: from the size of an image to that to which it is resized, (height, width).
        kept: keeps what the views show.
        step: reports progress.

    Returns:
        The views that show a point.

    Raises:
        UserError: no point is visible in any view; a depth map is missing, damaged or in another unit.
    """
    bare = scene.without(*scene.fields)
    points = torch.from_numpy(np.ascontiguousarray(scene.coord))
    counts, used, sizes = np.zeros(len(scene), np.int32), [], []
    for number, frame in enumerate(frames):
        step(number, len(frames))
        size = size_of(frame.camera.size)
        found = compute_visibility(bare, [frame], visibility, size, allow_none_visible=True)
        rows = np.flatnonzero(found["image_mask"][:, 0])
        if not len(rows):
            continue
        depth = camera_near(scene, frame.camera).project(points[rows])[1]
        counts[rows] += 1
        used.append(frame)
        sizes.append(size)
        kept.append(rows.astype(np.int32))
        kept.append(found["image_coord"][rows, 0])
        kept.append(depth.numpy().astype(np.float32))
    step(len(frames), len(frames))
    if not used:
        cameras = [
            camera_near(scene, frame.camera).resized(*size_of(frame.camera.size))
            for frame in frames
        ]
        names = [frame.name for frame in frames]
        problem = explain_no_visible_points(points, cameras, names, visibility)
        raise ImagesError(f"{scene.name}: {problem}")
    return Views(tuple(used), tuple(sizes), kept, counts)


def lift_rows(
    views: Views,
    map_of: MapOf,
    rows: NDArray[np.integer[Any]],
    *,
    fuse: str,
    sample: str,
    only: int | None = None,
) -> Tensor:
    """Features of some points, as ``dinomed3d.lifting.lift`` fuses them.

    Args:
        views: that show the cloud.
        map_of: the feature map of each view.
        rows: (n,) of the cloud, increasing, at least one.
        fuse: how the features of several views become one, one of ``FUSIONS``.
        sample: how a map is read, one of ``SAMPLINGS``.
        only: the one view that is used. None: all.

    Returns:
        (n, C) on the device of the maps, 0 where no view shows the point.
    """
    fusion, begun = FUSIONS[fuse](), False
    for view in range(len(views)) if only is None else (only,):
        shown = views.shown(view)
        first, last = np.searchsorted(shown.rows, (rows[0], rows[-1] + 1))
        place = np.searchsorted(rows, shown.rows[first:last])
        hit = rows[place] == shown.rows[first:last]
        if begun and not hit.any():
            continue
        maps = map_of(view)
        if not begun:
            fusion.start(len(rows), maps.values.shape[1], like=maps.values)
            begun = True
        index, uv, distance = (
            torch.from_numpy(values[hit]).to(maps.values.device)
            for values in (place, shown.uv[first:last], shown.distance[first:last])
        )
        fusion.add(index, SAMPLINGS[sample](maps, 0, uv), distance)
    return fusion.result()[0]
