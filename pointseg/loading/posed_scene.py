"""A scene with its posed images, from a dataset or from files, for checking cameras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from pointseg import datasets
from pointseg.config.folder_recipe import fit_to_dataset
from pointseg.config.presets import images_of, recipe_of
from pointseg.conventions import UNITS_M
from pointseg.datasets.axes import turn_of, upright
from pointseg.files import read_cloud
from pointseg.files.coordinate_systems.units import file_unit, one_unit
from pointseg.images.config import ImageConfig
from pointseg.images.readers.camera_files import CAMERA_FILES, read_cameras
from pointseg.images.readers.frame import Frame, ProvidesFrames, transform_frame
from pointseg.images.readers.organised import organised_frame
from pointseg.images.visibility import VisibilityConfig
from pointseg.scene import Scene


@dataclass(frozen=True, kw_only=True)
class PosedScene:
    """A scene and its posed images, in metres."""

    scene: Scene
    """The points."""
    frames: Sequence[Frame]
    """All images of the scene."""
    depth_tolerance_m: float
    """How far a point may lie behind a depth map, as training with this data has it, metres."""
    turn: NDArray[np.float64] | None = None
    """(3, 3) rotation that was applied to points and poses. None: not known."""
    unit_m: float | None = None
    """Metres per unit in the files, if somebody states it."""
    up: str = "z"
    """The axis that points up."""


def posed_scene_of_dataset(
    name: str, root: Path | None, config: Path | None, split: str | None, scene: str | None
) -> PosedScene:
    """A scene of a dataset.

    Args:
        name: of the dataset.
        root: its folder.
        config: description of the dataset ``folder``; None: the usual one.
        split: None: the first one.
        scene: None: the first one that has images.

    Raises:
        UserError: no such dataset, split or scene, or one without images.
    """
    dataset = datasets.open_dataset(name, root, config=config, labelled=False)
    if not hasattr(dataset, "frames"):
        raise UserError(f"--dataset {name}: has no images")
    recipe = fit_to_dataset(recipe_of(name), dataset)
    tolerance = images_of(recipe, ImageConfig.encoder).visibility.depth_tolerance_m
    split = split or dataset.splits()[0]
    names = dataset.scenes(split) if scene is None else (scene,)
    for found in names:
        frames = cast(ProvidesFrames, dataset).frames(split, found)
        if frames:
            posed = PosedScene(
                scene=dataset.load(split, found), frames=frames, depth_tolerance_m=tolerance
            )
            description = getattr(dataset, "description", None)
            if description is None:
                return posed
            return replace(posed, turn=turn_of(description.up), unit_m=description.unit_m)
    which = (
        f"no scene of the split {split} has" if scene is None else f"scene {split}/{scene} has no"
    )
    raise UserError(f"{dataset.name}: {which} images")


def posed_scene_of_files(
    cloud: Path,
    cameras: Path | None,
    images: Path | None,
    *,
    unit: str | None,
    log: Callable[[str], None],
) -> PosedScene:
    """A cloud in a file and its cameras.

    Args:
        cloud: the file.
        cameras: what ``read_cameras`` reads; None: an organised .pcd is its own image.
        images: folder of the images; None: ``images`` next to a COLMAP model, or where the file says.
        unit: of coordinates and poses; None: as the file says, else metre.
        log: receives notes.

    Raises:
        UserError: files that cannot be read; no cameras.
    """
    found = file_unit(cloud, None if unit is None else UNITS_M[unit])
    unit_m = one_unit(cloud, found.unit_m)
    for note in found.notes:
        log(f"{cloud.name}: {note}")
    frames: Sequence[Frame]
    if cameras is None:
        if cloud.suffix.lower() != ".pcd":
            raise UserError(
                f"{cloud}: give its cameras with --cameras: {CAMERA_FILES}; only an organised .pcd is its own image"
            )
        frames = (organised_frame(cloud, unit_m=unit_m),)
        log("the camera was fitted to the points: the figures describe the file, not a calibration")
    else:
        frames = read_cameras(cameras, images, cloud=cloud)
    return PosedScene(
        scene=upright(read_cloud(cloud), unit_m=unit_m),
        frames=[transform_frame(f, np.eye(3), np.zeros(3), scale=unit_m) for f in frames],
        depth_tolerance_m=VisibilityConfig.depth_tolerance_m,
        unit_m=unit_m,
        up="-y" if cameras is None else "z",
    )


def measured_points(scene: Scene, log: Callable[[str], None]) -> Scene:
    """A scene without points that were not measured: see ``measured_rows``."""
    rows = measured_rows(scene, log)
    return scene if len(rows) == len(scene) else scene.select(rows)


def measured_rows(scene: Scene, log: Callable[[str], None]) -> NDArray[np.int64]:
    """(M,) the points that were measured: not NaN, nor 0, 0, 0 as scanners write for no return."""
    finite = np.isfinite(scene.coord).all(1)
    at_zero = np.asarray(finite & ~(scene.coord + scene.origin).any(1))
    keep = np.ones(len(scene), bool)
    for dropped, why in ((~finite, "have no position"), (at_zero, "are at 0, 0, 0: no returns")):
        if dropped.sum() > (dropped is at_zero):  # a single point may well be there
            log(f"{dropped.sum()} of {len(scene)} points are left out: they {why}")
            keep &= ~dropped
    return np.flatnonzero(keep)
