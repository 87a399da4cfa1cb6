"""The posed images of a cloud in a file: where they are, what they show, and what is to be said of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pointseg.config.recipe import Form
from pointseg.datasets.folder.cameras import CameraRule
from pointseg.images.config import ImageConfig
from pointseg.images.readers.image_files import file_key
from pointseg.loading.scene_images import Showing, Views
from pointseg.scene import Scene

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame


@dataclass(frozen=True)
class CloudImages:
    """The images of one cloud, for a model that reads such."""

    recipe: ImageConfig
    """How the model uses them."""
    frames: tuple[Frame, ...]
    """Brought to metres with z up, as the cloud is; none if there are no images."""
    lacking: str = ""
    """Why there are none."""

    @classmethod
    def find(
        cls, path: Path, recipe: ImageConfig, rule: CameraRule | None, form: Form
    ) -> CloudImages:
        """The images of a cloud; none of them is read.

        Args:
            path: the file of the cloud.
            recipe: says, too, whether a cloud may have none.
            rule: where they are, below the cloud's folder; None: there are none.
            form: unit and axes of the cloud, and of the poses.

        Raises:
            UserError: what describes the cameras is damaged, or missing although it must be there.
        """
        if rule is None:
            return cls(recipe, (), "--cameras would say where they are")
        file = PurePosixPath(path.name)
        place = rule.place(path.parent, file, "", path.stem)
        if recipe.allow_unseen and not place.exists():
            return cls(recipe, (), f"{place} is not there")
        frames = rule.frames(
            path.parent, file, "", path.stem, unit_m=form.unit_m, up=form.up
        )  # fmt: skip
        return cls(recipe, frames, "" if frames else f"{place} names none")

    def digest(self) -> str:
        """What tells one state of the cameras and images from another."""
        digest = hashlib.sha256()
        for frame in self.frames:
            camera = frame.camera
            numbers = [camera.intrinsics, camera.world_to_camera, camera.distortion]
            told = [None if values is None else values.tolist() for values in numbers]
            depth = [repr(frame.depth)]  # its file, and how it is read
            if isinstance(place := getattr(frame.depth, "path", None), Path):
                depth.append(file_key(place))
            digest.update(json.dumps([frame.name, frame.image.key(), depth, told]).encode())
        return digest.hexdigest()

    def given_to(self, name: str, cloud: Scene) -> tuple[Scene, Views, float]:
        """The cloud with ``image_coord`` and ``image_mask``, its views, and the share of points they show.

        Args:
            name: of the cloud, for messages.
            cloud: in metres with z up.

        Raises:
            UserError: no point is seen although some must be; an image that cannot be read.
        """
        cloud, views = Showing(self.recipe).of(name, cloud, self.frames)
        return cloud, views, float(cloud["image_mask"].any(1).mean())

    def note(self, seen: float) -> str:
        """What is to be said of a cloud of whose points they show a share."""
        if not self.frames:
            return f"has no images ({self.lacking}); it is predicted without"
        return f"its images show {100 * seen:.0f} % of the points"
