"""Classes of a cloud that does not fit into memory: points go through buckets and tiles on disk.

    file --read once--> ranges of its values --read again--> buckets of whole voxels --> tiles, one after the other
    file + classes of all tiles --a piece at a time--> result

Tiles, margins and voxels are those of a cloud in memory, so the classes are equal, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.memory import free_bytes
from pointseg.config.recipe import FEATURES, PointCloudFormat, Recipe
from pointseg.evaluation.scene_predictor import ScenePredictor
from pointseg.files import CloudFileError, cloud_name, in_pieces, size_of
from pointseg.files.columns.to_scene import scene_of
from pointseg.files.labelling.certainty import MEASURES
from pointseg.files.table.pieces import Pieces
from pointseg.geometry.ground import ground_settings
from pointseg.loading.network_input import Placement
from pointseg.prediction.results.point_classes import PointClasses
from pointseg.prediction.streaming.buckets import Bucket, Buckets
from pointseg.prediction.streaming.cloud_on_disk import CloudOnDisk
from pointseg.prediction.streaming.finished_tiles import FinishedTiles
from pointseg.prediction.streaming.height_file import HeightFile
from pointseg.prediction.streaming.sort_points import sort_points
from pointseg.prediction.streaming.time_left import TimeLeft
from pointseg.prediction.streaming.unfinished import (
    changed,
    check_disk,
    clear,
    read_state,
    write_state,
)

BYTES_OF_POINT = 250
"""Memory that the prediction of a cloud in memory takes for each point, apart from the point's own in the file."""
COPIES = 4
"""How many times what a file has of a point is in memory then."""
MEMORY_SHARE = 0.7
"""Share of the free memory that a cloud in memory may take."""
RESULT_GROWTH = 1.3
"""How much larger than its input a result may be: each point gets a class."""
ALIKE = 0.8
"""Share of the voxels of a tile above which the size of tiles stays as an earlier run had it."""


def memory_needed(pieces: Pieces) -> int:
    """Bytes that the prediction of a cloud in memory takes apart from the network, about."""
    return pieces.count * (BYTES_OF_POINT + COPIES * pieces.row_bytes)


@dataclass(frozen=True)
class Stream:
    """How clouds are streamed."""

    recipe: Recipe
    """Of the model."""
    predictor: ScenePredictor
    """Predicts tiles."""
    cloud_format: PointCloudFormat
    """Unit and axes of the files."""
    check_scale: bool
    """Whether clouds of a doubtful scale are refused."""
    log: Callable[[str], None]
    """Receives how far it is, and what else the user should know."""
    needs_certainty: bool = False
    """Whether it must be found how sure classes are."""
    reject: float | None = None
    """Confidence below which points get no class; needs the certainty. None: all keep theirs."""
    with_heights: bool = False
    """Whether heights above the ground are found, too."""

    def is_better(self, path: Path) -> bool:
        """Whether a cloud does not fit into memory, by the size that its header tells, and can be streamed."""
        try:
            fits = memory_needed(self._in_pieces(path)) <= MEMORY_SHARE * free_bytes()
            return not fits and self.refusal(path) is None
        except CloudFileError:
            return (
                False  # of a type that is read as a whole, or damaged, which reading it will tell
            )

    def predict(
        self, path: Path, folder: Path, how: dict[str, Any], progress: Callable[..., None]
    ) -> tuple[PointClasses, list[str]]:
        """Find the classes of all points of a file.

        Args:
            path: the file.
            folder: holds what was done so far, and receives the rest.
            how: all that decides the classes.
            progress: called with the share of the work that is done, and with the name of the file when that is the
                share at which it goes on.

        Returns:
            The classes, in files of the unfinished folder; what the user should know.

        Raises:
            UserError: what cannot be streamed; too little disk.
        """
        how = {**how, "certainty": True} if self.needs_certainty else how
        how = {**how, "heights": ground_settings()} if self.with_heights else how
        pieces = self._in_pieces(path)
        if reason := self.refusal(path):
            raise UserError(f"cannot be streamed: {reason}; cut it into several files")
        state = self._resumed(path, folder, how)
        files = Buckets(folder, sum(channels for _, channels in self._fields), pieces.count)
        bytes_of_tiles = FinishedTiles.bytes_of_point(with_certainty=self.needs_certainty)
        needed = pieces.count * (files.bytes_of_point + 2 * bytes_of_tiles)
        measured = pieces.count * 4 * len(MEASURES) if self.needs_certainty else 0
        measured += pieces.count * 8 if self.with_heights else 0
        check_disk(folder, needed + int(RESULT_GROWTH * size_of(path)) + measured)
        if state is None:
            state = self._sorted(path, pieces, files, folder, how)
        tiles = FinishedTiles(
            folder / "tiles",
            pieces.count,
            self.predictor.classes,
            with_certainty=self.needs_certainty,
        )
        if tiles.found:
            self.log(f"{path.name}: {tiles.found} tiles are finished, going on with the others")
        buckets = [Bucket.from_dict(saved) for saved in state["buckets"]]
        cloud = CloudOnDisk(cloud_name(path), files, buckets, self._fields, tiles)
        left = TimeLeft(
            path.name, state["seconds"], self.log, progress, begun=cloud.done / len(cloud)
        )
        with self._tile_size(path, state["max_points"], tiles):
            low, high = np.array(state["low"]), np.array(state["high"])
            placement = Placement(low, high, self.recipe, self.predictor.max_side_m)
            self.predictor.predict_tiles(cloud, placement, left)
        classes = tiles.gather(folder, self.reject)
        if self.with_heights:
            classes = replace(classes, heights=HeightFile(folder, pieces.count).rows)
        return classes, state["notes"]

    @property
    def _fields(self) -> list[tuple[str, int]]:
        """Name and channels of the fields of each point."""
        return [(name, FEATURES[name]) for name in self.recipe.needs]

    def _in_pieces(self, path: Path) -> Pieces:
        return in_pieces(path, self.cloud_format.columns_of(path))

    def refusal(self, path: Path) -> str | None:
        """Why a file cannot be streamed: model and options that need the whole cloud at once. None: it can.

        Raises:
            CloudFileError: it is damaged, or of a type that is only read as a whole.
        """
        thin = self.predictor.protocol.config.prevoxel_m
        if self.recipe.images is not None:
            return "its model reads images, which are projected to whole clouds"
        if self.recipe.input.unit_sphere:
            return "its model scales whole clouds to a unit sphere"
        if thin is not None and not self.predictor.protocol.single_pass:
            return f"--tta thins whole clouds to voxels of {thin} m"
        if "normal" in self.recipe.needs:
            first = scene_of(path, next(iter(self._in_pieces(path).read(1))), name=cloud_name(path))
            if "normal" not in first:
                return "it has no normals, which are only estimated for whole clouds"
        return None

    def _sorted(
        self, path: Path, pieces: Pieces, files: Buckets, folder: Path, how: dict[str, Any]
    ) -> dict[str, Any]:
        """Sort the points on disk, and note that they are."""
        self.log(f"{path.name}: is streamed; sorting {pieces.count:,} points on disk")
        found = sort_points(
            path,
            pieces,
            files,
            self.recipe,
            self.cloud_format,
            max_side_m=self.predictor.max_side_m,
            check_scale=self.check_scale,
            heights=HeightFile(folder, pieces.count) if self.with_heights else None,
        )
        state = {"how": how, "max_points": self.predictor.max_points, **found}
        write_state(folder, state)
        return state

    def _resumed(self, path: Path, folder: Path, how: dict[str, Any]) -> dict[str, Any] | None:
        """What an earlier run has sorted, if it is whole and would be the same now."""
        state = read_state(folder)
        if state is None:
            clear(folder)  # it was stopped before points were sorted
            return None
        reason = ", ".join(changed(state.get("how", {}), how))
        if reason:
            reason = f"{reason} changed since"
        elif self._is_whole(state, folder):
            return state
        else:
            reason = "its files are damaged"
        self.log(f"{path.name}: an unfinished result is there, but {reason}; it starts over")
        clear(folder)
        return None

    def _is_whole(self, state: dict[str, Any], folder: Path) -> bool:
        """Whether the sorted points are those that the state describes."""
        try:
            files = Buckets(folder, sum(c for _, c in self._fields), state["count"])
            whole = all(files.digest(one["number"]) == one["sha256"] for one in state["buckets"])
            if self.with_heights:
                heights = HeightFile(folder, state["count"])
                whole = whole and heights.digest() == state["heights_sha256"]
            return whole and {"low", "high", "max_points", "seconds", "notes"} <= state.keys()
        except (KeyError, TypeError, ValueError, OSError):  # written by another version, or edited
            return False

    @contextmanager
    def _tile_size(self, path: Path, then: int, tiles: FinishedTiles) -> Iterator[None]:
        """Cut tiles as the run that was stopped did, if the memory is as free as it was then."""
        now = self.predictor.max_points
        if now < ALIKE * then:
            self.log(
                f"{path.name}: less memory is free than before, going on with {now} voxels per tile instead of {then}"
            )
            tiles.expect_others()
        else:
            self.predictor.max_points = then
        try:
            yield
        finally:
            if self.predictor.max_points == then:
                self.predictor.max_points = now
