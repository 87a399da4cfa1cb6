"""The points of a file sorted on disk, into buckets of whole voxels."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from pointseg.config.recipe import PointCloudFormat, Recipe
from pointseg.datasets.scale import (
    FEW_POINTS,
    degrees_doubt,
    nearest_to,
    scale_doubt,
    spacing_of,
    spacing_rows,
)
from pointseg.files import cloud_name
from pointseg.files.columns.resolution import resolution_notes
from pointseg.files.table.pieces import Pieces
from pointseg.prediction.inputs.notes import file_notes, no_position_note, scale_notes
from pointseg.prediction.inputs.prepare_cloud import axes_of, refuse_clipped, refuse_missing
from pointseg.prediction.streaming.buckets import POINTS, Buckets, spill
from pointseg.prediction.streaming.height_file import HeightFile
from pointseg.prediction.streaming.partition import Partition, columns_of_voxels
from pointseg.prediction.streaming.stream_input import StreamInput
from pointseg.prediction.streaming.survey import Survey, survey
from pointseg.scene import Scene


def sort_points(
    path: Path,
    pieces: Pieces,
    files: Buckets,
    recipe: Recipe,
    cloud_format: PointCloudFormat,
    *,
    max_side_m: float,
    check_scale: bool,
    heights: HeightFile | None,
) -> dict[str, Any]:
    """Sort the points of a file into buckets, and note all that is needed of them from then on.

    Args:
        path: the file.
        pieces: of it.
        files: of the buckets; there are none yet.
        recipe: of the model.
        cloud_format: unit and axes of the file.
        max_side_m: as ``Placement``.
        check_scale: whether a cloud of a doubtful scale is refused.
        heights: receives heights above the ground; None: they are found only for a model that reads them.

    Returns:
        What an unfinished result notes, as JSON holds it.

    Raises:
        UserError: no points, a doubtful scale, or a missing field that the model reads.
    """
    began = time.monotonic()
    seen = survey(path, pieces, stated=cloud_format.ranges, needs=recipe.needs)
    seconds = time.monotonic() - began
    _refuse(seen, pieces.count, recipe)
    axes, notes = axes_of(path, cloud_format)
    source = StreamInput(path, pieces, recipe, axes, seen, max_side_m=max_side_m, heights=heights)
    partition = Partition(columns_of_voxels(source.sample, recipe.voxel_m), seen.finite, POINTS)
    centres: list[NDArray[np.float32]] = []
    parts = _picking(source.rows(), spacing_rows(seen.finite), centres)
    counts = spill(parts, files, partition, recipe.voxel_m)
    held = [number for number, count in enumerate(counts) if count]
    if seen.finite < pieces.count:
        notes.append(no_position_note(pieces.count - seen.finite))
    known = Scene(coord=seen.sample, origin=seen.scales.origin, name=cloud_name(path))
    notes += resolution_notes(known, axes.unit_m, recipe.voxel_m)
    if seen.finite >= FEW_POINTS:
        doubt = degrees_doubt(source.known, recipe.voxel_m) or scale_doubt(
            source.extent_m, lambda: _spacing(files, held, centres), recipe.voxel_m
        )
        notes += scale_notes(doubt, refuse=check_scale)
    notes += file_notes(path, seen.scales, recipe)
    return {
        **({} if heights is None else {"heights_sha256": heights.digest()}),
        "count": pieces.count,
        "low": source.placement.low.tolist(),
        "high": source.placement.high.tolist(),
        "notes": notes,
        "seconds": seconds,
        "buckets": [asdict(files.find_voxels(n, counts[n], recipe.voxel_m)) for n in held],
    }


def _refuse(seen: Survey, points: int, recipe: Recipe) -> None:
    """Refuse a cloud that has no points, or lacks what the model reads, before it is sorted."""
    if seen.finite == 0:
        raise UserError("contains no points" if not points else "has no point with a position")
    unfilled = seen.scales.unfilled
    refuse_clipped(seen.scales, recipe)
    refuse_missing([name for name in recipe.needs if name in unfilled], recipe, unfilled)


def _picking(
    parts: Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]],
    rows: Sequence[int],
    found: list[NDArray[np.float32]],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """The same parts; the positions of some rows of the whole, ascending, are appended to a list."""
    start = 0
    for index, values in parts:
        found += [values[row - start, :3] for row in rows if start <= row < start + len(values)]
        start += len(values)
        yield index, values


def _spacing(
    files: Buckets, numbers: Sequence[int], centres: Sequence[NDArray[np.float32]]
) -> float:
    """As ``point_spacing``, of the points of all buckets."""
    near = [np.empty((0, 3), np.float32) for _ in centres]
    for number in numbers:
        coord = files.rows(number)[:, :3]
        for place, centre in enumerate(centres):
            near[place] = nearest_to(centre, np.concatenate([near[place], coord]))
    return spacing_of(near)
