"""Where the posed images of a person's own clouds are: the key ``cameras`` of ``dataset.yaml``."""

from __future__ import annotations

import os
import string
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from pointseg.datasets.axes import turn_of
from pointseg.datasets.errors import DatasetError

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame

ORGANISED = "organised"
PLACES = ("scene", "split", "folder")
"""What stands in braces in a pattern: the name of the scene, of its split, and the folder of its file."""
KINDS = (
    "the path of each scene's manifest below the root, such as '{scene}/cameras.json', or "
    f"{ORGANISED}, or {{colmap: FOLDER, images: FOLDER}}"
)
"""What ``cameras`` may be, in words."""


@dataclass(frozen=True)
class CameraRule:
    """How the images of a cloud are found."""

    kind: str
    """manifest, colmap or organised."""
    path: str = ""
    """The manifest, or the folder of COLMAP's model: a pattern below the root."""
    images: str = ""
    """The folder of COLMAP's images."""

    def place(self, root: Path, file: PurePosixPath, split: str, scene: str) -> Path:
        """What must be there for a scene to have images."""
        if self.kind == ORGANISED:
            return root / file
        return root / _filled(self.path, file, split, scene)

    def frames(
        self,
        root: Path,
        file: PurePosixPath,
        split: str,
        scene: str,
        *,
        unit_m: float,
        up: str,
    ) -> tuple[Frame, ...]:
        """The frames of a scene whose coordinates are brought to metres with z up.

        Args:
            root: of the dataset.
            file: of the cloud, below it.
            split: its split.
            scene: its name.
            unit_m: metres per unit of the cloud, and of the poses.
            up: its vertical axis.

        Raises:
            UserError: what describes the cameras is damaged or does not fit.
        """
        from pointseg.images.readers.frame import transform_frame

        place = self.place(root, file, split, scene)
        if self.kind == ORGANISED:
            if place.suffix.lower() != ".pcd":
                raise DatasetError(
                    f"{place}: 'cameras: {ORGANISED}' is for .pcd files, whose rows and columns are an image's"
                )
            from pointseg.images.readers.organised import organised_frame

            found: tuple[Frame, ...] = (organised_frame(place, unit_m=unit_m),)
        elif self.kind == "colmap":
            from pointseg.images.readers.colmap import read_colmap

            found = read_colmap(place, root / _filled(self.images, file, split, scene))
        else:
            from pointseg.images.readers.manifest import read_manifest

            found = read_manifest(place)
        turn = turn_of(up)
        return tuple(transform_frame(frame, turn, np.zeros(3), scale=unit_m) for frame in found)


def parse_cameras(value: Any) -> CameraRule:
    """What the description says.

    Raises:
        ValueError: something else; the message says what it must be.
    """
    if value == ORGANISED:
        return CameraRule(ORGANISED)
    if isinstance(value, str) and value:
        return CameraRule("manifest", _checked(value))
    if isinstance(value, dict) and set(value) == {"colmap", "images"}:
        if all(isinstance(each, str) and each for each in value.values()):
            return CameraRule("colmap", _checked(value["colmap"]), _checked(value["images"]))
    raise ValueError(f"'cameras' must be {KINDS}, got {value!r}")


def literal(path: Path) -> str:
    """A pattern that stands for one path, wherever a cloud lies."""
    return os.path.abspath(path).replace("{", "{{").replace("}", "}}")


def _checked(pattern: str) -> str:
    try:
        used = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
    except ValueError as error:
        raise ValueError(f"'cameras': '{pattern}': {error}") from error
    if not used <= set(PLACES):
        raise ValueError(
            f"'cameras': '{pattern}': in braces must be one of {', '.join(PLACES)}, "
            f"got {', '.join(sorted(used - set(PLACES)))}"
        )
    return pattern


def _filled(pattern: str, file: PurePosixPath, split: str, scene: str) -> str:
    return pattern.format(scene=scene, split=split, folder=file.parent.as_posix())
