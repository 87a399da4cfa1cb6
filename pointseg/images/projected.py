"""What is kept of the projection of a scene's points into its views: every view, or one for each point."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.lifting import SelectView
from pointseg.scene import Scene

NO_VIEW = -1
"""In ``image_view``: no view sees the point."""


class Projected(Protocol):
    """Collects the projections of N points, view by view."""

    def add(self, view: int, start: int, uv: Tensor, visible: Tensor, distance: Tensor) -> None:
        """Add where the points from row ``start`` on lie in one view.

        Args:
            view: its number.
            start: row of the first point.
            uv: (n, 2) float32 pixels.
            visible: (n,) bool.
            distance: (n,) along the camera's axis, metres.
        """
        ...

    def add_to(self, scene: Scene) -> Scene:
        """The scene with the fields of images."""
        ...


class EveryView:
    """Positions in all V views: ``image_coord`` (N, V, 2), 0 where not visible; ``image_mask`` (N, V)."""

    def __init__(self, points: int, views: int) -> None:
        self.coord = np.zeros((points, views, 2), np.float32)
        self.mask = np.zeros((points, views), np.bool_)

    def add(self, view: int, start: int, uv: Tensor, visible: Tensor, distance: Tensor) -> None:
        """See Projected.add."""
        rows = slice(start, start + len(uv))
        self.coord[rows, view] = torch.where(visible[:, None], uv, 0).numpy()
        self.mask[rows, view] = visible.numpy()

    def add_to(self, scene: Scene) -> Scene:
        """See Projected.add_to."""
        return scene.with_fields(image_coord=self.coord, image_mask=self.mask)


class ChosenView:
    """The one view that each point's feature is read from, so that the others need not be kept.

    ``image_view`` (N,) is its number, -1 where no view sees the point; ``image_coord`` (N, 1, 2) and
    ``image_mask`` (N, 1) are of that view alone.
    """

    def __init__(self, points: int, views: int, choose: SelectView, *, shown: bool = False) -> None:
        """Start without any view.

        Args:
            points: N.
            views: V, at most 32767.
            choose: which of the views that see a point is chosen; reset here.
            shown: whether ``image_shown`` (N, V), all views that see a point, is kept as well.

        Raises:
            ValueError: more views than an int16 counts.
        """
        if views > np.iinfo(np.int16).max:
            raise ValueError(f"ChosenView: 'views' must be at most 32767, got {views}")
        self.coord = np.zeros((points, 1, 2), np.float32)
        self.view = np.full(points, NO_VIEW, np.int16)
        self.shown: NDArray[np.bool_] | None = np.zeros((points, views), bool) if shown else None
        self.choose = choose
        choose.reset(points, torch.device("cpu"))

    def add(self, view: int, start: int, uv: Tensor, visible: Tensor, distance: Tensor) -> None:
        """See Projected.add; of a fusion in which the last view wins, later ones replace earlier ones."""
        index = torch.nonzero(visible).squeeze(1)
        index = index[self.choose.update(index + start, distance[index])]
        rows = (index + start).numpy()
        self.coord[rows, 0] = uv[index].numpy()
        self.view[rows] = view
        if self.shown is not None:
            self.shown[start : start + len(uv), view] = visible.numpy()

    def add_to(self, scene: Scene) -> Scene:
        """See Projected.add_to."""
        scene = scene.with_fields(
            image_coord=self.coord, image_mask=(self.view >= 0)[:, None], image_view=self.view
        )
        return scene if self.shown is None else scene.with_fields(image_shown=self.shown)
