"""From a file of points to the input of a model: metres, z up, the fields that the model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from pointseg.config.recipe import PointCloudFormat, Recipe
from pointseg.datasets.axes import upright
from pointseg.datasets.scale import check_scale
from pointseg.files import cloud_suffix, finite_points
from pointseg.files.columns import file_strength, scale_above, usual_strength
from pointseg.files.las import is_copc
from pointseg.files.las_header import header_notes, read_header
from pointseg.ops.ground import height_above_ground
from pointseg.ops.normals import estimate_normals
from pointseg.scene import Scene

ORIENTATIONS = {
    "middle": "towards the middle of the cloud",
    "origin": "towards the origin of the coordinates",
    "up": "upwards",
}
"""Orientations of estimated normals, and how notes describe them."""
DEFAULT_ORIENTATION = {"indoor": "middle", "outdoor": "origin"}
SCALED_FILES = (".bin", ".pcd.bin")
"""File types that define the scale of intensities."""


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
    cloud_format: PointCloudFormat,
    *,
    orient_normals: str | None = None,
    refuse_scale: bool = True,
) -> PreparedCloud:
    """Prepare a cloud for a model; missing normals are estimated.

    Args:
        scene: as its file has it.
        recipe: of the model.
        cloud_format: unit and axes of the file.
        orient_normals: one of ``ORIENTATIONS``; None: by the type of scenes of the model.
        refuse_scale: whether a cloud is refused whose scale does not seem to fit the voxel size.

    Raises:
        UserError: no points, a doubtful scale, or a missing field that the model reads.
    """
    notes = []
    cloud, index = finite_points(upright(scene, unit_m=cloud_format.unit_m, up=cloud_format.up))
    if len(cloud) == 0:
        raise UserError("contains no points" if len(scene) == 0 else "no point has a position")
    if len(cloud) < len(scene):
        notes.append(no_position_note(len(scene) - len(cloud)))
    doubt = None if recipe.input.unit_sphere else check_scale(cloud, recipe.voxel_m)
    notes += scale_notes(doubt, refuse=refuse_scale)
    if "height_above_ground" in recipe.needs:  # computed, as in training
        cloud = cloud.with_fields(height_above_ground=height_above_ground(cloud.coord))
    missing = [name for name in recipe.needs if name not in cloud]
    if "normal" in missing:
        towards = orient_normals or DEFAULT_ORIENTATION[recipe.scene_type]
        position = _sensor_position(cloud, towards)
        normals = estimate_normals(cloud.coord, sensor_position=position)
        cloud = cloud.with_fields(normal=normals)
        notes.append(f"has no normals; they were estimated, oriented {ORIENTATIONS[towards]}")
        missing.remove("normal")
    refuse_missing(missing, recipe)
    return PreparedCloud(cloud, index, tuple(notes))


def refuse_missing(missing: Sequence[str], recipe: Recipe) -> None:
    """Refuse a cloud without fields that the model reads.

    Raises:
        UserError: some are missing.
    """
    if missing:
        raise UserError(
            f"lacks {', '.join(missing)}; the model reads {', '.join(recipe.needs)} at every point: use a file that "
            "has them, or a model that was trained without"
        )


def no_position_note(points: int) -> str:
    """What the user should know of points without a position."""
    return f"{points} points have no position; their class is -1"


def scale_notes(doubt: str | None, *, refuse: bool) -> list[str]:
    """What the user should know of a cloud whose scale is doubtful.

    Raises:
        UserError: it is, and is to be refused.
    """
    if doubt is not None and refuse:
        raise UserError(f"{doubt} (--unit millimetre; or --skip-scale-check)")
    return [] if doubt is None else [doubt]


def file_notes(path: Path, scene: Scene, recipe: Recipe, intensity_max: float | None) -> list[str]:
    """What the user should know about a file: its type, and the scale of its intensities."""
    values = file_strength(scene) if "strength" in recipe.needs else None
    if values is None:
        return type_notes(path)
    is_float = values.dtype.kind == "f"
    usual = usual_strength(values)
    return type_notes(path) + strength_notes(path, usual, intensity_max, is_float=is_float)


def type_notes(path: Path) -> list[str]:
    """What the user should know about the type of a file."""
    if cloud_suffix(path) not in (".las", ".laz"):
        return []
    copc = ["is cloud-optimised (COPC); the result is plain LAZ"] if is_copc(path) else []
    return copc + header_notes(read_header(path))


def strength_notes(
    path: Path, usual: float, intensity_max: float | None, *, is_float: bool
) -> list[str]:
    """What the user should know about intensities, of which 99 % stay below ``usual``."""
    if intensity_max is None and cloud_suffix(path) not in SCALED_FILES:
        scale = scale_above(usual, is_float=is_float)
        return [f"its intensities are assumed to reach {scale}; state it with --intensity-max"]
    if intensity_max is not None and usual > intensity_max:
        return [f"more than 1 % of its intensities exceed {intensity_max:g} (--intensity-max)"]
    return []


def _sensor_position(scene: Scene, towards: str) -> NDArray[np.float64] | None:
    """(3,) the point that normals point to, in the coordinates of the scene. None: upwards."""
    if towards == "up":
        return None
    if towards == "origin":
        return -scene.origin
    low, high = np.percentile(scene.coord, [1, 99], axis=0)  # a few outliers do not move the middle
    return np.asarray((low + high) / 2)
