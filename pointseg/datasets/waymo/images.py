"""Waymo's images: five cameras with the positions of points in them that the dataset ships.

``cameras.json`` of a segment describes its images, whose JPEG files are copied unchanged. The two side cameras are
886 pixels high and the others 1280, of which DITR leaves the upper 394 out; they are cut off when images are read.

The shutters of the cameras roll while the car moves. The dataset says where each point was seen with that taken into
account, in one camera or two; of these the first is used, as in DITR. Without that table points are projected
with the pose of the car at the middle of the image.

Source: DITR (Knaebel et al. 2025), its published conversion.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import atomic_write
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.prepared import CAMERAS as CAMERAS_FILE
from pointseg.datasets.waymo.points import read_vehicle_poses
from pointseg.datasets.waymo.projection import (
    FOLDER,
    ShippedProjection,
    projection_folder,
    write_projections,
)
from pointseg.datasets.waymo.tables import (
    CAMERA,
    CAMERAS,
    FRAME,
    Table,
    sensor_number,
    transform,
)
from pointseg.images.readers.frame import Frame, ImagesError, ImageSource
from pointseg.images.readers.manifest import frames_of
from pointseg.images.readers.pillow import opened_image

FORMAT = "pointseg-waymo-cameras-1"
HEIGHT = 886
"""Rows that images keep, from below."""
LARGEST_FILE = 50_000_000
"""Bytes of an image at most."""
TO_CAMERA = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
"""From x forward, y left, z up to x right, y down, z forward."""
INTRINSICS = ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3")

View = dict[str, Any]
"""A view as in ``pointseg.images.readers.manifest``; its world is the vehicle of the frame."""


@dataclass(frozen=True)
class LowerRows:
    """An image without its upper rows."""

    image: ImageSource
    """The whole image."""
    top: int
    """How many rows are left out."""

    def __str__(self) -> str:
        return str(self.image)

    def read(self) -> NDArray[np.uint8]:
        """See ImageSource.read."""
        return self.image.read()[self.top :]

    def key(self) -> str:
        """See ImageSource.key."""
        return self.image.key()


def read_frames(segment: Path, timestamp: str) -> tuple[Frame, ...]:
    """The images of a frame in the order of their cameras.

    Args:
        segment: folder of the prepared segment.
        timestamp: of the frame.

    Raises:
        DatasetError: the description is missing or damaged.
        ImagesError: a value in it is wrong.
    """
    path = segment / CAMERAS_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"'format' must be {FORMAT}, got {found['format']!r}")
        views, shipped = found["frames"][timestamp], bool(found["projection"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: is missing or damaged ({error!r}); delete it and prepare again with --images"
        ) from error
    frames = frames_of(path, views, base=segment, shared={"pose_direction": "world_to_camera"})
    folder = projection_folder(segment, timestamp)
    return tuple(_lower_part(frame, folder if shipped else None) for frame in frames)


def _lower_part(frame: Frame, folder: Path | None) -> Frame:
    """A frame without the upper rows of its image, with the projection in a folder."""
    height, width = frame.camera.size
    top = max(0, height - HEIGHT)
    if top:
        intrinsics = frame.camera.intrinsics.clone()
        intrinsics[1, 2] -= top
        camera = replace(frame.camera, intrinsics=intrinsics, size=(height - top, width))
        frame = replace(frame, camera=camera, image=LowerRows(frame.image, top))
    if folder is None:
        return frame
    number = CAMERAS.index(frame.name) + 1
    return replace(frame, projection=ShippedProjection(folder, number, top))


def prepare_images(folder: Path, target: Path, frames: frozenset[int]) -> list[str]:
    """Write the images of a segment, where points are in them, and ``cameras.json``; returns notes.

    Args:
        folder: of the split, in the official download.
        target: folder of the prepared segment, whose points exist.
        frames: timestamps of its frames.

    Raises:
        DatasetError: a table is missing or damaged.
        WriteError: the system refuses to write.
    """
    views, notes = _write_images(folder, target, frames)
    path = folder / "lidar_camera_projection" / f"{target.name}.parquet"
    shipped = path.is_file()
    if shipped:
        notes += write_projections(folder, target, frames)
    else:
        notes.append(f"{path} is missing: points are projected as if all pixels were taken at once")
    content = {
        "format": FORMAT,
        "projection": shipped,
        "frames": {str(f): [views[f][n] for n in sorted(views[f])] for f in sorted(frames)},
    }
    atomic_write(target / CAMERAS_FILE, json.dumps(content).encode())
    return notes


def _write_images(
    folder: Path, target: Path, frames: frozenset[int]
) -> tuple[dict[int, dict[int, View]], list[str]]:
    """The views of each frame by the number of the camera; notes."""
    segment, no_pose = target.name, dict[int, str]()
    cameras = _read_cameras(folder, segment)
    cars = read_vehicle_poses(folder, segment, frames, no_pose)
    table = Table(folder, "camera_image", "CameraImageComponent", segment)
    views: dict[int, dict[int, View]] = {frame: {} for frame in frames}
    bad: list[str] = []
    for row in table.rows((FRAME, CAMERA), ("image", "pose.transform"), frames=frames):
        frame = row[FRAME]
        try:
            number = sensor_number(table, row[CAMERA], CAMERAS)
            if number not in cameras or frame not in cars:
                raise DatasetError(f"{table.path}: an image has no calibration or no vehicle pose")
            view, to_vehicle = cameras[number]
            name = f"{FOLDER}/{frame}/{CAMERAS[number - 1]}.jpg"
            atomic_write(target / name, _checked_jpeg(table, row["image"], view))
            then = transform(table, row["pose.transform"], "'pose.transform'")
            pose = TO_CAMERA @ np.linalg.inv(then @ to_vehicle) @ cars[frame]
            views[frame][number] = {**view, "image": name, "pose": pose.tolist()}
        except (DatasetError, ImagesError) as error:
            bad.append(f"{frame}: {error}")
    notes = [f"left out {len(bad)} images, such as {bad[0]}"] if bad else []
    fewer = sum(len(found) < len(cameras) for found in views.values())
    if fewer:
        notes.append(f"{fewer} of {len(frames)} frames lack images of some cameras")
    return views, notes


def _read_cameras(folder: Path, segment: str) -> dict[int, tuple[View, NDArray[np.float64]]]:
    """What all views of each camera share, and its (4, 4) pose, camera to vehicle."""
    table = Table(folder, "camera_calibration", "CameraCalibrationComponent", segment)
    names = [f"intrinsic.{name}" for name in INTRINSICS]
    found: dict[int, tuple[View, NDArray[np.float64]]] = {}
    for row in table.rows((CAMERA,), (*names, "extrinsic.transform", "width", "height")):
        number = sensor_number(table, row[CAMERA], CAMERAS)
        if any(row[name] is None for name in (*names, "width", "height")):
            raise DatasetError(f"{table.path}: a value of {CAMERAS[number - 1]} is missing")
        fu, fv, cu, cv, *distortion = (float(row[name]) for name in names)
        view: View = {
            "name": CAMERAS[number - 1],
            "width": int(row["width"]),
            "height": int(row["height"]),
            "K": [[fu, 0.0, cu], [0.0, fv, cv], [0.0, 0.0, 1.0]],
            "distortion": distortion,
        }
        pose = transform(table, row["extrinsic.transform"], "'extrinsic.transform'")
        found[number] = (view, pose)
    return found


def _checked_jpeg(table: Table, data: Any, view: View) -> bytes:
    """The bytes of an image, whose header says that it is a JPEG of the size of its camera."""
    what = f"image of {view['name']}"
    if not isinstance(data, bytes) or not 0 < len(data) <= LARGEST_FILE:
        raise DatasetError(f"{table.path}: an {what} is missing or too large")
    with opened_image(data, table.path, what=what, formats=("JPEG",)) as image:
        size = image.size
    if size != (view["width"], view["height"]):
        raise DatasetError(
            f"{table.path}: images of {view['name']} must be {view['width']} x {view['height']} pixels, "
            f"one is {size[0]} x {size[1]}"
        )
    return data
