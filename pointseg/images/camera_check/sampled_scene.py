"""A sample of the points of a scene, compared with the scene's images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.lifting import Camera
from pointseg.images.camera_check.agreement import (
    MIN_POINTS,
    Agreement,
    ProjectedPoints,
    compute_agreement,
    pixel_colors,
    project_points,
    render_depth_map,
)
from pointseg.images.camera_check.pose_conventions import alternative_poses
from pointseg.images.projection import camera_near
from pointseg.images.readers.frame import Frame
from pointseg.images.visibility import VisibilityConfig
from pointseg.scene import Scene

MAX_POINTS = 1_000_000
"""Points in statistics and pictures, at most; occlusion is computed from all points."""
SEARCHED_POINTS = 20_000
"""Points, roughly, by which it is decided whether an image shows the scene."""
OUTLIER_SHARE = 0.01
"""Share of the points that may be in view of an image by accident, under a wrong pose."""


@dataclass(frozen=True)
class CheckedView:
    """Agreement of the cloud and one image."""

    name: str
    """Name of the frame."""
    stated: Agreement
    """Under the stated pose."""
    others: Mapping[str, Agreement]
    """With the pose read in the other conventions."""

    @property
    def title(self) -> str:
        """The name with the shares of points that are inside the image and visible, for pictures."""
        inside, visible = (
            n / self.stated.points for n in (self.stated.inside, self.stated.visible)
        )
        return f"{self.name}: {inside:.1%} of the points inside, {visible:.1%} visible"


class SampledScene:
    """A sample of a scene's points, and the colours that images show there."""

    def __init__(
        self,
        scene: Scene,
        visibility: VisibilityConfig,
        turn: NDArray[np.float64] | None,
        up: str = "z",
    ) -> None:
        """Draw the sample.

        Args:
            scene: the points.
            visibility: when one is visible.
            turn: (3, 3) rotation from the world of the files to that of the points; None: none.
            up: axis of the points that points up.
        """
        self.up = torch.zeros(3, dtype=torch.float64)
        self.up["xyz".index(up[-1])] = -1.0 if up.startswith("-") else 1.0
        self.scene, self.visibility = scene, visibility
        self.turn = None if turn is None else torch.from_numpy(turn).double()
        self.all = torch.from_numpy(np.ascontiguousarray(scene.coord))
        index = np.arange(len(scene))
        if len(index) > MAX_POINTS:
            index = np.sort(np.random.default_rng(0).choice(len(index), MAX_POINTS, replace=False))
        self.points = self.all[torch.from_numpy(index)]
        self.color = scene["color"][index] if "color" in scene else None
        self.seen, self.inside = np.zeros(len(index), bool), np.zeros(len(index), bool)
        self._sum, self._count = np.zeros((len(index), 3)), np.zeros((len(index), 1))

    def hardly_in(self, frames: Sequence[Frame]) -> bool:
        """Whether none of the frames has more than a few outliers in view."""
        step = -(-len(self.points) // SEARCHED_POINTS)
        few = min(MIN_POINTS, OUTLIER_SHARE * len(self.points)) / step
        points, anywhere = self.points[::step], VisibilityConfig()
        cameras = (camera_near(self.scene, frame.camera) for frame in frames)
        return all(project_points(c, points, anywhere).inside.sum() <= few for c in cameras)

    def check(
        self, frame: Frame, image: NDArray[np.uint8], depth: Tensor | None
    ) -> tuple[ProjectedPoints, CheckedView]:
        """The points in one view, and their agreement under all pose conventions."""
        projected, stated = self._agreement(frame.camera, image, depth)
        render = self.color is not None  # occlusion matters to alternatives for colours only
        others = {
            name: self._agreement(camera, image, depth, render=render)[1]
            for name, camera in alternative_poses(frame.camera, self.turn).items()
        }
        return projected, CheckedView(frame.name, stated, others)

    def _agreement(
        self, camera: Camera, image: NDArray[np.uint8], depth: Tensor | None, *, render: bool = True
    ) -> tuple[ProjectedPoints, Agreement]:
        camera = camera_near(self.scene, camera)
        occluder = None if self.visibility.occlusion == "none" else depth
        if depth is None and render and self.visibility.occlusion == "z-buffer":
            occluder = render_depth_map(camera, self.all)
        projected = project_points(camera, self.points, self.visibility, depth=occluder)
        agreement = compute_agreement(
            projected, camera, image=image, depth=depth, color=self.color,
            depth_tolerance_m=self.visibility.depth_tolerance_m, up=self.up,
        )  # fmt: skip
        return projected, agreement

    def paint(self, projected: ProjectedPoints, image: NDArray[np.uint8]) -> None:
        """Add the colours of an image to the points that are visible in it."""
        visible = projected.visible.numpy()
        self._sum[visible] += pixel_colors(projected, image)
        self._count[visible] += 1
        self.seen |= visible
        self.inside |= projected.inside.numpy()

    def image_colors(self) -> NDArray[np.float64]:
        """(M, 3) mean colour of the images in which a point is visible; 0 where it is in none."""
        return np.asarray(self._sum / np.maximum(self._count, 1))
