"""The cloud of a file with its posed images, in metres with z up, and the file's own rows and coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from pointseg.datasets.axes import upright
from pointseg.datasets.folder.cameras import ORGANISED, CameraRule, literal
from pointseg.files import cloud_name, cloud_suffix, read_cloud
from pointseg.files.coordinate_systems.units import file_unit
from pointseg.images.readers.camera_files import CAMERA_FILES
from pointseg.images.readers.frame import Frame
from pointseg.images.readers.intrinsics import intrinsics_note
from pointseg.loading.posed_scene import measured_rows
from pointseg.prediction.inputs.cloud_images import camera_rule
from pointseg.scene import Scene


@dataclass(frozen=True)
class LiftSource:
    """A cloud and its images."""

    scene: Scene
    """The N points of the file as it has them."""
    cloud: Scene
    """The M measured ones of them, in metres with z up."""
    index: NDArray[np.int64]
    """(M,) their rows in the file, increasing."""
    frames: Sequence[Frame]
    """The images, in the world of ``cloud``."""

    @property
    def coordinates(self) -> NDArray[np.floating]:
        """(N, 3) positions as the file has them, float64 where they are far from zero."""
        scene = self.scene
        return scene.coord + scene.origin if scene.origin.any() else scene.coord


def read_source(
    path: Path, rule: CameraRule, *, unit_m: float | None, up: str, say: Callable[[str], None]
) -> LiftSource:
    """Read a cloud, and find its images without reading them.

    Args:
        path: the file of the cloud.
        rule: where the images are, below its folder.
        unit_m: metres per unit of coordinates and poses; None: as the file says, else metres.
        up: their vertical axis.
        say: receives notes.

    Raises:
        UserError: the cloud or the description of its cameras is missing or damaged; no point has a position;
            there are no images.
    """
    scene, unit = read_cloud(path), file_unit(path, unit_m)
    for note in unit.notes:
        say(note)
    file, name = PurePosixPath(path.name), cloud_name(path)
    frames = rule.frames(path.parent, file, "", name, unit_m=unit.unit_m, up=up)
    if not frames:
        raise UserError(f"{rule.place(path.parent, file, '', name)}: lists no images")
    if doubt := intrinsics_note(frames):
        say(doubt)
    index = measured_rows(scene, say)
    if not len(index):
        raise UserError(f"{path}: {'no point has a position' if len(scene) else 'has no points'}")
    turned = upright(scene, unit_m=unit.unit_m, up=up)
    cloud = turned.without(*(key for key in turned.fields if key != "color")).select(index)
    return LiftSource(scene, cloud, index, frames)


def cameras_of(cloud: Path, cameras: str | None, images: str | None) -> CameraRule:
    """Where the images of a cloud are, by the options --cameras and --images.

    Args:
        cloud: the file.
        cameras: ``organised``; a file or folder, found from the current folder or else from that of the cloud.
            None: an organised ``.pcd`` is its own image.
        images: folder of the images. None: ``images`` next to a COLMAP model, or where the file says.

    Raises:
        UserError: no cameras, or images without cameras.
    """
    if cameras is None and cloud_suffix(cloud) == ".pcd":
        cameras = ORGANISED
    if cameras is not None and Path(cameras).is_file():
        cameras = literal(Path(cameras))
    rule = camera_rule(cameras, images)
    if rule is None:
        raise UserError(
            f"{cloud}: give its cameras with --cameras: {CAMERA_FILES}; only an organised .pcd is its own image"
        )
    return rule
