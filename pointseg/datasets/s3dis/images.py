"""Prepares S3DIS's images: the perspective images of each room in 2D-3D-S, with pose and depth map.

Nothing is copied: ``cameras.json`` of a room refers to the official files.

Source: Armeni 2017, arXiv:1702.01105.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.prepared import CAMERAS
from pointseg.datasets.s3dis.dataset import AREAS
from pointseg.datasets.s3dis.rooms import turn_of_room
from pointseg.datasets.scene_arrays import load_array
from pointseg.images.projection import frames_in_view
from pointseg.images.readers.frame import Frame, make_camera, transform_frame
from pointseg.images.readers.image_files import DepthFile, ImageFile, image_size
from pointseg.images.readers.manifest import write_manifest
from pointseg.scene import Scene

DEPTH_PER_M = 512.0
"""Units of the depth maps per metre."""
MISSING = 65535.0
"""Unknown depth."""
NAME = re.compile(r"camera_[0-9a-f]+_(?P<room>.+)_frame_\d+_domain_rgb\.png")

AREA_5B = np.array(
    [[0, -1, 0, 6.22617759], [1, 0, 0, 4.09703582], [0, 0, 1, 0], [0, 0, 0, 1]], np.float64
)
"""Transform from the world of Area 5's clouds to that of area 5b's poses."""
SAMPLE = 50_000
"""Points by which images that do not show the room are found."""

Room = tuple[str, str]
"""Area and room."""


@dataclass(frozen=True)
class RoomImages:
    """The images of one room."""

    files: tuple[Path, ...]
    """Its image files."""
    angle: int | None
    """Angle by which the cloud was aligned, in degrees; None: it was not."""


def find_rooms(root: Path) -> Mapping[Room, tuple[Path, ...]]:
    """Find the images of each room.

    Args:
        root: the folder of 2D-3D-S with ``area_1/data/rgb`` and so on; ``area_5a`` and ``area_5b`` are Area_5.

    Raises:
        DatasetError: it holds no such images.
    """
    found: dict[Room, list[Path]] = {}
    for area in AREAS:
        number = area.removeprefix("Area_")
        for part in ("", "a", "b"):
            for path in sorted((root / f"area_{number}{part}" / "data" / "rgb").glob("*.png")):
                match = NAME.fullmatch(path.name)
                if match is not None:
                    found.setdefault((area, match["room"]), []).append(path)
    if not found:
        raise DatasetError(
            f"{root}: must be the folder of 2D-3D-S with area_1/data/rgb and so on, has no images "
            f"camera_..._frame_N_domain_rgb.png there"
        )
    return {room: tuple(files) for room, files in found.items()}


def prepare_images(task: RoomImages, target: Path) -> list[str]:
    """Write ``cameras.json`` into the folder of a room whose arrays exist; returns notes.

    Raises:
        UserError: a pose is missing, damaged or not rigid; an image cannot be read.
    """
    coord = load_array(target, "coord", None, 3)
    frames = [align_frame(frame, coord, task.angle) for frame in map(read_frame, task.files)]
    room = Scene(coord=coord.astype(np.float32, copy=False), name=target.name)
    seeing = [frames[number] for number in frames_in_view(room, frames, count=SAMPLE)]
    write_manifest(target / CAMERAS, seeing)
    blind = len(frames) - len(seeing)
    return [f"{blind} of {len(frames)} images do not show the room"] if blind else []


def read_frame(image: Path) -> Frame:
    """Read the pose of an image of 2D-3D-S, in the world of its area's clouds.

    Raises:
        UserError: its pose is missing, damaged or not rigid; the image cannot be read.
    """
    stem = image.name.removesuffix("_rgb.png")
    path = image.parent.parent / "pose" / f"{stem}_pose.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        intrinsics = np.array(found["camera_k_matrix"], np.float64).reshape(3, 3)
        pose = np.array(found["camera_rt_matrix"], np.float64).reshape(-1, 4)[:3]
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: is missing; unpack 2D-3D-S again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: must be JSON with camera_k_matrix (3 x 3) and camera_rt_matrix (3 x 4): {error!r}"
        ) from error
    if image.parts[-4] == "area_5b":
        pose = pose @ AREA_5B
    depth = image.parent.parent / "depth" / f"{stem}_depth.png"
    return Frame(
        name=stem.removeprefix("camera_").removesuffix("_domain"),
        camera=make_camera(
            str(path), intrinsics=intrinsics, size=image_size(image), world_to_camera=pose
        ),
        image=ImageFile(image),
        depth=DepthFile(depth, DEPTH_PER_M, (MISSING,)) if depth.is_file() else None,
    )


def align_frame(frame: Frame, coord: NDArray[np.floating], angle: int | None) -> Frame:
    """The frame in the world of an aligned room.

    Args:
        frame: in the world of its area.
        coord: (N, 3) the aligned points; their box has the same middle as before.
        angle: see RoomImages.
    """
    if angle is None:
        return frame
    low, high = coord.min(0).astype(np.float64), coord.max(0).astype(np.float64)
    turn, middle = turn_of_room(angle), (low + high) / 2
    return transform_frame(frame, turn, middle - turn @ middle)
