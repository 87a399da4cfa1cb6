"""Prepares Structured3D's images: the perspective views of furnished rooms, with pose and depth map.

Nothing is copied: ``cameras.json`` of a room refers to the official files. Panoramas are no images of a pinhole
camera and are left out, as in D-DITR.
"""

from __future__ import annotations

from pathlib import Path

from pointseg.datasets.prepared import CAMERAS
from pointseg.datasets.structured3d.cameras import read_pinhole
from pointseg.datasets.structured3d.rgbd import DEPTH, DEPTH_PER_M, RGB, rendering_size
from pointseg.images.readers.frame import Frame
from pointseg.images.readers.image_files import DepthFile, ImageFile
from pointseg.images.readers.manifest import write_manifest

POSE = "camera_pose.txt"


def perspective_views(room: Path) -> list[Path]:
    """Folders of the perspective views of a room with its furniture, in order of their numbers."""
    found = (path for path in (room / "perspective" / "full").glob("*") if path.is_dir())
    return sorted(found, key=lambda path: (len(path.name), path.name))


def prepare_images(room: Path, target: Path) -> list[str]:
    """Write ``cameras.json`` into the folder of a room; returns notes.

    Raises:
        UserError: an image or a pose is missing or damaged.
    """
    frames = [read_frame(folder) for folder in perspective_views(room)]
    write_manifest(target / CAMERAS, frames)
    return [] if frames else ["has no perspective views, thus no images"]


def read_frame(folder: Path) -> Frame:
    """The posed image of a perspective view.

    Raises:
        UserError: an image or the pose is missing or damaged.
    """
    return Frame(
        name=folder.name,
        camera=read_pinhole(folder / POSE, rendering_size(folder)),
        image=ImageFile(folder / RGB),
        depth=DepthFile(folder / DEPTH, DEPTH_PER_M),
    )
