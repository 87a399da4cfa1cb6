"""A cloud that does not fit into memory as a model reads it: metres, z up, its fields, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from pointseg.config.recipe import FEATURES, Recipe
from pointseg.datasets.axes import FileAxes, upright
from pointseg.files import cloud_name, finite_points
from pointseg.files.columns.names import HEIGHT
from pointseg.files.columns.to_scene import scene_of
from pointseg.files.table.pieces import PIECE, Pieces
from pointseg.geometry.ground import Ground
from pointseg.loading.network_input import Placement
from pointseg.prediction.inputs.prepare_cloud import refuse_missing
from pointseg.prediction.streaming.height_file import HeightFile
from pointseg.prediction.streaming.survey import Survey
from pointseg.scene import Scene


class StreamInput:
    """The points of a file as ``prepare_cloud`` prepares them, but for normals, which are not estimated."""

    def __init__(
        self,
        path: Path,
        pieces: Pieces,
        recipe: Recipe,
        axes: FileAxes,
        survey: Survey,
        *,
        max_side_m: float,
        heights: HeightFile | None = None,
    ) -> None:
        """Find where training would have placed the cloud.

        Args:
            path: the file.
            pieces: of it.
            recipe: of the model.
            axes: unit and vertical axis of the file.
            survey: of the file; some points have a position.
            max_side_m: as ``Placement``.
            heights: receives heights above the ground; None: they are found only for a model that reads them.
        """
        self._path, self._pieces, self._recipe = path, pieces, recipe
        self._axes, self._survey, self._heights = axes, survey, heights
        corners = self._upright(np.stack([survey.low, survey.high]).astype(np.float32))
        low, high = corners.min(0).astype(np.float64), corners.max(0).astype(np.float64)
        self.placement = Placement(low, high, recipe, max_side_m)
        self.extent_m = float((high - low).max())
        """The longest side of the cloud, metres."""
        known = Scene(coord=survey.sample, origin=survey.scales.origin)
        self.known = upright(known, unit_m=axes.unit_m, up=axes.up)
        """Some of its points, in metres with z up."""
        self.sample: NDArray[np.float32] = self.placement(Scene(coord=self.known.coord)).coord
        """(n, 3) the same, placed."""

    @property
    def fields(self) -> list[tuple[str, int]]:
        """Name and channels of the fields of each point."""
        return [(name, FEATURES[name]) for name in self._recipe.needs]

    def rows(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Pieces of the points with a position: where the file has them, and positions and fields, placed.

        Raises:
            UserError: a field is missing or not finite.
        """
        is_needed = HEIGHT in self._recipe.needs or self._heights is not None
        ground = Ground(self._positions) if is_needed else None
        if self._heights is not None:
            self._heights.begin()
        for start, index, cloud in self._clouds():
            if ground is not None:
                heights = ground.heights(cloud.coord)
                cloud = cloud.with_fields(**{HEIGHT: heights})
                if self._heights is not None:
                    self._heights.put(start + index, heights)
            refuse_missing(
                [name for name in self._recipe.needs if name not in cloud],
                self._recipe,
                self._survey.scales.unfilled,
            )
            values = [cloud[name] for name in self._recipe.needs]
            for name, found in zip(self._recipe.needs, values, strict=True):
                if not np.isfinite(found).all():
                    raise UserError(f"scene {cloud.name}: '{name}' has values that are not finite")
            coord = self.placement(Scene(coord=cloud.coord)).coord
            yield start + index, np.concatenate([coord, *values], axis=1, dtype=np.float32)

    def _clouds(self) -> Iterator[tuple[int, NDArray[np.int64], Scene]]:
        """The first point of each piece, those of the piece with a position, and the latter themselves."""
        start = 0
        for columns in self._pieces.read(PIECE):
            scene = scene_of(
                self._path, columns, name=cloud_name(self._path), scales=self._survey.scales
            )
            cloud, index = finite_points(upright(scene, unit_m=self._axes.unit_m, up=self._axes.up))
            if len(index):
                yield start, index, cloud
            start += len(scene)

    def _positions(self) -> Iterator[NDArray[np.float32]]:
        """The points of each piece with a position, metres with z up."""
        for _, _, cloud in self._clouds():
            yield cloud.coord

    def _upright(self, coord: NDArray[np.float32]) -> NDArray[np.float32]:
        scene = Scene(coord=coord)
        return upright(scene, unit_m=self._axes.unit_m, up=self._axes.up).coord
