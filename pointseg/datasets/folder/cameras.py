"""Finds the posed images of your own clouds: the key ``cameras`` of ``dataset.yaml``."""

from __future__ import annotations

import os
import string
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pointseg.datasets.axes import upright_frames
from pointseg.datasets.errors import DatasetError
from pointseg.files.coordinate_systems.units import UnitM, one_unit

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame

ORGANISED = "organised"
PLACES = ("scene", "split", "folder")
"""Placeholders of a pattern: the name of the scene, of its split, and the folder of its file."""
WITH_IMAGES = ("colmap", "transforms", "metashape")
"""Kinds of descriptions whose images may be elsewhere."""
KINDS = (
    "the path of each scene's cameras.json or transforms.json below the root, such as '{scene}/cameras.json', or "
    f"{ORGANISED}, or {{colmap: FOLDER, images: FOLDER}}, {{transforms: FILE, images: FOLDER}} or "
    "{metashape: FILE.xml, images: FOLDER}"
)
"""Allowed values of ``cameras``, in words."""


@dataclass(frozen=True)
class CameraRule:
    """Where the images of a cloud are."""

    path: str
    """Pattern of the file or folder that describes the cameras, below the root; or ``organised``."""
    images: str = ""
    """Pattern of the folder of the images; empty: where the description says."""

    @property
    def is_organised(self) -> bool:
        """Whether each cloud is its own image."""
        return self.path == ORGANISED

    def place(self, root: Path, file: PurePosixPath, split: str, scene: str) -> Path:
        """The file or folder that exists if a scene has images."""
        if self.is_organised:
            return root / file
        return root / _filled(self.path, file, split, scene)

    def frames(
        self,
        root: Path,
        file: PurePosixPath,
        split: str,
        scene: str,
        *,
        unit_m: UnitM,
        up: str,
    ) -> tuple[Frame, ...]:
        """The frames of a scene, in metres with z up.

        Args:
            root: folder of the dataset.
            file: file of the cloud, relative to ``root``.
            split: split of the scene.
            scene: name of the scene.
            unit_m: metres per unit of the cloud and the poses.
            up: vertical axis of the cloud and the poses.

        Raises:
            UserError: the description of the cameras is damaged or does not fit.
        """
        size = one_unit(root / file, unit_m)
        place = self.place(root, file, split, scene)
        if self.is_organised:
            if place.suffix.lower() != ".pcd":
                raise DatasetError(f"{place}: 'cameras: {ORGANISED}' needs an organised .pcd file")
            from pointseg.images.readers.organised import organised_frame

            found: tuple[Frame, ...] = (organised_frame(place, unit_m=size),)
        else:
            from pointseg.images.readers.camera_files import read_cameras

            images = root / _filled(self.images, file, split, scene) if self.images else None
            found = read_cameras(place, images, cloud=root / file)
        return upright_frames(found, unit_m=size, up=up)


def parse_cameras(value: Any) -> CameraRule:
    """Parse the value of ``cameras``.

    Raises:
        ValueError: it has another form; the message says which it must have.
    """
    if value == ORGANISED:
        return CameraRule(ORGANISED)
    if isinstance(value, str) and value:
        return CameraRule(_checked(value))
    if isinstance(value, dict) and any(set(value) == {kind, "images"} for kind in WITH_IMAGES):
        if all(isinstance(each, str) and each for each in value.values()):
            place = next(value[kind] for kind in WITH_IMAGES if kind in value)
            return CameraRule(_checked(place), _checked(value["images"]))
    raise ValueError(f"'cameras' must be {KINDS}, got {value!r}")


def literal(path: Path) -> str:
    """A pattern for one path, the same for all clouds."""
    return os.path.abspath(path).replace("{", "{{").replace("}", "}}")


def _checked(pattern: str) -> str:
    try:
        used = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
    except ValueError as error:
        raise ValueError(f"'cameras': '{pattern}': {error}") from error
    if not used <= set(PLACES):
        raise ValueError(
            f"'cameras': '{pattern}': placeholders must be of {', '.join(PLACES)}, "
            f"got {', '.join(sorted(used - set(PLACES)))}"
        )
    return pattern


def _filled(pattern: str, file: PurePosixPath, split: str, scene: str) -> str:
    return pattern.format(scene=scene, split=split, folder=file.parent.as_posix())
