"""From a cloud to the input of a model: metres, z up, the fields that the model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from pointseg.config.recipe import PointCloudFormat, Recipe
from pointseg.datasets.axes import FileAxes, upright
from pointseg.datasets.scale import check_scale
from pointseg.files import finite_points
from pointseg.files.columns.resolution import resolution_notes
from pointseg.files.columns.scales import Scales
from pointseg.files.coordinate_systems.units import file_unit
from pointseg.geometry.ground import height_above_ground
from pointseg.geometry.normals import estimate_normals
from pointseg.prediction.inputs.advice import COMMAND, Advice, FileAdvice
from pointseg.prediction.inputs.notes import no_position_note, scale_notes
from pointseg.scene import Scene

ORIENTATIONS = {
    "middle": "towards the middle of the cloud",
    "origin": "towards the origin of the coordinates",
    "up": "upwards",
}
"""Orientations of estimated normals, and how notes describe them."""
DEFAULT_ORIENTATION = {"indoor": "middle", "outdoor": "origin"}
NOTHING_UNFILLED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class PreparedCloud:
    """The points that a model predicts."""

    cloud: Scene
    """In metres with z up, without points that have no position."""
    index: NDArray[np.int64]
    """(N,) their place in the file."""
    notes: tuple[str, ...]
    """What the user should know."""


def prepare_cloud(
    scene: Scene,
    recipe: Recipe,
    axes: FileAxes,
    *,
    orient_normals: str | None = None,
    refuse_scale: bool = True,
    unfilled: Mapping[str, str] = NOTHING_UNFILLED,
    advice: Advice = COMMAND,
) -> PreparedCloud:
    """Prepare a cloud for a model; missing normals are estimated.

    Args:
        scene: as its file has it.
        recipe: of the model.
        axes: unit and vertical axis of the file.
        orient_normals: one of ``ORIENTATIONS``; None: by the type of scenes of the model.
        refuse_scale: whether a cloud is refused whose scale does not seem to fit the voxel size.
        unfilled: fields that its file has but nobody filled, and how that shows.
        advice: what refusals say can be done.

    Raises:
        UserError: no points, a doubtful scale, or a missing field that the model reads.
    """
    notes = []
    cloud, index = finite_points(upright(scene, unit_m=axes.unit_m, up=axes.up))
    if len(cloud) == 0:
        none = "contains no points" if len(scene) == 0 else "has no point with a position"
        raise UserError(f"{advice.who}{none}")
    if len(cloud) < len(scene):
        notes.append(no_position_note(len(scene) - len(cloud)))
    notes += resolution_notes(scene, axes.unit_m, recipe.voxel_m)
    doubt = None if recipe.input.unit_sphere else check_scale(cloud, recipe.voxel_m)
    notes += scale_notes(doubt, refuse=refuse_scale, advice=advice)
    if "height_above_ground" in recipe.needs:  # computed, as in training
        cloud = cloud.with_fields(height_above_ground=height_above_ground(cloud.coord))
    missing = [name for name in recipe.needs if name not in cloud]
    if "normal" in missing:
        towards = orient_normals or DEFAULT_ORIENTATION[recipe.scene_type]
        position = _sensor_position(cloud, towards)
        normals = estimate_normals(cloud.coord, sensor_position=position)
        cloud = cloud.with_fields(normal=normals)
        why = unfilled.get("normal", "has no normals")
        notes.append(f"{why}; they were estimated, oriented {ORIENTATIONS[towards]}")
        missing.remove("normal")
    refuse_missing(missing, recipe, unfilled, advice)
    return PreparedCloud(cloud, index, tuple(notes))


def axes_of(path: Path, cloud_format: PointCloudFormat) -> tuple[FileAxes, list[str]]:
    """What the coordinates of a file mean, and what the user should know of that.

    Args:
        path: the file.
        cloud_format: what was stated, of these files or of those of the training.

    Raises:
        CloudFileError: its coordinates are degrees.
    """
    found = file_unit(path, cloud_format.unit_m)
    return FileAxes(found.unit_m, cloud_format.up), list(found.notes)


def refuse_missing(
    missing: Sequence[str],
    recipe: Recipe,
    unfilled: Mapping[str, str] = NOTHING_UNFILLED,
    advice: Advice = COMMAND,
) -> None:
    """Refuse a cloud without fields that the model reads.

    Args:
        missing: these fields.
        recipe: of the model.
        unfilled: how it shows that fields of the file were never filled.
        advice: what can be done.

    Raises:
        UserError: some are missing.
    """
    if missing:
        lacks = ", ".join(
            f"{name} ({unfilled[name]})" if name in unfilled else name for name in missing
        )
        raise UserError(
            f"{advice.who}lacks {lacks}; the model reads {', '.join(recipe.needs)} at every point: {advice.missing}"
        )


def refuse_clipped(scales: Scales, recipe: Recipe, advice: FileAdvice = COMMAND) -> None:
    """Refuse a cloud with a field that the model reads and whose values mostly lie outside their range.

    Args:
        scales: how its values were understood.
        recipe: of the model.
        advice: what can be done.

    Raises:
        UserError: there is one.
    """
    for name in recipe.needs:
        if (clipped := scales.clipped.get(name)) is not None:
            raise UserError(f"{advice.who}{clipped.found}; {advice.ranges(clipped.option)}")


def _sensor_position(scene: Scene, towards: str) -> NDArray[np.float64] | None:
    """(3,) the point that normals point to, in the coordinates of the scene. None: upwards."""
    if towards == "up":
        return None
    if towards == "origin":
        return -scene.origin
    low, high = np.percentile(scene.coord, [1, 99], axis=0)  # a few outliers do not move the middle
    return np.asarray((low + high) / 2)
