"""A cloud whose points are in buckets on disk, as tiles are cut from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pointseg.evaluation.tile_predictor import TileClasses
from pointseg.evaluation.tiled_cloud import Part, members
from pointseg.evaluation.tiling import Places, Tile
from pointseg.prediction.streaming.buckets import Bucket, Buckets, intersecting
from pointseg.prediction.streaming.finished_tiles import FinishedTiles
from pointseg.prediction.streaming.places_on_disk import EVERYWHERE, places_within
from pointseg.scene import Scene


class CloudOnDisk:
    """Points in buckets; each finished tile is a file, which a run that was stopped finds again."""

    def __init__(
        self,
        name: str,
        files: Buckets,
        buckets: Sequence[Bucket],
        fields: Sequence[tuple[str, int]],
        results: FinishedTiles,
    ) -> None:
        """Open what ``spill`` has written.

        Args:
            name: of the cloud, for messages.
            files: of the buckets.
            buckets: those that hold points.
            fields: name and channels of the fields of each point, in their order.
            results: of tiles that are finished.
        """
        self.name, self._files, self._buckets, self._fields = name, files, buckets, fields
        self._results = results
        self._points = sum(bucket.points for bucket in buckets)

    def __len__(self) -> int:
        return self._points

    @property
    def done(self) -> int:
        """Points whose class is known."""
        return min(self._results.points, self._points)

    def places(self) -> Places:
        """The first point of each voxel, with the number of its points as weight."""
        self._results.begin()
        return places_within(self._files, self._buckets, *EVERYWHERE)

    def part(self, tile: Tile) -> Part | None:
        """The points of a tile; None: the classes of all points in its core are known."""
        if self._results.has(tile):
            return None
        index, rows, wanted = [], [], []
        for bucket in intersecting(self._buckets, tile.outer_low, tile.outer_high):
            places = self._files.places(bucket.number)
            points, core = members(tile, places["xy"], self._files.voxel(bucket.number))
            if len(points):
                index.append(self._files.index(bucket.number)[points])
                rows.append(self._files.rows(bucket.number)[points])
                wanted.append(core)
        places_in_file = np.concatenate(index).astype(np.int64)
        order = np.argsort(places_in_file)  # as the file has them
        part = Part(
            self._scene(np.concatenate(rows)[order]),
            np.concatenate(wanted)[order],
            places_in_file[order],
        )
        return None if self._results.covers(part.points[part.wanted]) else part

    def keep(self, tile: Tile, part: Part, found: TileClasses) -> None:
        """Note the classes of a part's wanted points."""
        certainty = found.certainty()[part.wanted] if self._results.with_certainty else None
        self._results.add(tile, part.points[part.wanted], found.labels[part.wanted], certainty)

    def _scene(self, rows: NDArray[np.float32]) -> Scene:
        fields, at = {}, 3
        for name, channels in self._fields:
            fields[name] = np.ascontiguousarray(rows[:, at : at + channels])
            at += channels
        return Scene(coord=np.ascontiguousarray(rows[:, :3]), fields=fields, name=self.name)
