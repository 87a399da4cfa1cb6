"""The posed images of a cloud in a file: where they are, and which points they show."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dinomed3d.runtime.errors import UserError
from pointseg.datasets.axes import FileAxes
from pointseg.datasets.folder.cameras import ORGANISED, CameraRule, literal, parse_cameras
from pointseg.files import cloud_name
from pointseg.images.config import ImageConfig
from pointseg.images.readers.image_files import file_key
from pointseg.images.readers.intrinsics import intrinsics_note
from pointseg.images.readers.manifest import describe_lens
from pointseg.loading.scene_images import ImageLoader, ImageSet
from pointseg.scene import Scene

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame


@dataclass(frozen=True)
class CloudImages:
    """The images of one cloud, for a model that reads images."""

    config: ImageConfig
    """How the model uses images."""
    frames: tuple[Frame, ...]
    """In metres with z up, like the cloud; empty if there are no images."""
    missing: str = ""
    """Why there are no frames."""

    @classmethod
    def find(
        cls,
        path: Path,
        config: ImageConfig,
        rule: CameraRule | None,
        axes: FileAxes,
    ) -> CloudImages:
        """Find the images of a cloud, without reading them.

        Args:
            path: the file of the cloud.
            config: decides whether a cloud may have none.
            rule: where they are, below the folder of the cloud; None: there are none.
            axes: unit and vertical axis of the cloud, and of the poses.

        Raises:
            UserError: what describes the cameras is damaged, or missing although it must be there.
        """
        if rule is None:
            return cls(config, (), "give their place with --cameras")
        file, name = PurePosixPath(path.name), cloud_name(path)  # as training names its scenes
        place = rule.place(path.parent, file, "", name)
        if config.allow_missing_images and not place.exists():
            return cls(config, (), f"{place} does not exist")
        frames = rule.frames(path.parent, file, "", name, unit_m=axes.unit_m, up=axes.up)
        return cls(config, frames, "" if frames else f"{place} lists none")

    def digest(self) -> str:
        """SHA-256 of the cameras and the state of the image files."""
        digest = hashlib.sha256()
        for frame in self.frames:
            camera = frame.camera
            values: list[Any] = [camera.intrinsics.tolist(), camera.world_to_camera.tolist()]
            values.append(None if camera.distortion is None else describe_lens(camera.distortion))
            depth = [repr(frame.depth)]  # its file, and how it is read
            if isinstance(place := getattr(frame.depth, "path", None), Path):
                depth.append(file_key(place))
            digest.update(json.dumps([frame.name, frame.image.key(), depth, values]).encode())
        return digest.hexdigest()

    def add_to(self, name: str, cloud: Scene) -> tuple[Scene, ImageSet, float]:
        """The cloud with ``image_coord`` and ``image_mask``, its views, and the share of visible points.

        Args:
            name: of the cloud, for messages.
            cloud: in metres with z up.

        Raises:
            UserError: no point is visible although the settings require some; an image that cannot be read.
        """
        cloud, images = ImageLoader(self.config).load(name, cloud, self.frames)
        return cloud, images, float(cloud["image_mask"].any(1).mean())

    def note(self, visible: float) -> str:
        """What the user should know, given the share of visible points."""
        if not self.frames:
            return f"has no images ({self.missing}); predicted without"
        doubt = intrinsics_note(self.frames)
        shown = f"{100 * visible:.0f} % of its points are visible in images"
        return f"{shown}; {doubt}" if doubt else shown


def camera_rule(cameras: str | None, images: str | None) -> CameraRule | None:
    """Where the posed images of clouds are, by the options --cameras and --images.

    Args:
        cameras: ``organised``; an existing folder: one COLMAP model for all clouds; else a path below the folder
            of each cloud, of anything that ``read_cameras`` reads.
        images: folder of the images; None: ``images`` next to a COLMAP model, or where the file says.

    Returns:
        The rule; None if neither is given.

    Raises:
        UserError: images without cameras, or a path with unknown fields.
    """
    if cameras is None or (cameras == ORGANISED and images is not None):
        if images is not None:
            raise UserError(
                "--images: is the folder of the images of --cameras (COLMAP, transforms.json); give that, too"
            )
        return None
    if cameras != ORGANISED and Path(cameras).is_dir():
        cameras = literal(Path(cameras))
        images = None if images is None else literal(Path(images))
    rule = cameras if images is None else {"colmap": cameras, "images": images}
    try:
        return parse_cameras(rule)
    except ValueError as error:
        raise UserError(
            f"--cameras {cameras}: {error}; with --images the folder of its images"
        ) from error
