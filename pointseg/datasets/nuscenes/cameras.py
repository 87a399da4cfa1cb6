"""Poses of nuScenes' six cameras in the coordinate system of the scanner, corrected for the motion of the car.

The cameras of a keyframe are triggered up to 50 ms before or after its sweep. A point therefore goes from
scanner to car (at the time of the sweep), to the world, to the car (at the time of the image), to the camera.

Source: Caesar 2020, arXiv:1903.11027.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.nuscenes.tables import Keyframe, read_table

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame

CHANNELS = (
    "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT",
)  # fmt: skip
"""The cameras, in the order of their views."""
SIZE = (900, 1600)
"""Height and width of the images, if the tables do not say."""
FORMAT = "pointseg-nuscenes-cameras-1"
FOLDER = "cameras"

View = dict[str, Any]
"""A view as in ``pointseg.images.readers.manifest``; its world is the coordinate system of the sweep."""


def read_cameras(
    root: Path, version: str, keyframes: Sequence[Keyframe]
) -> tuple[dict[str, list[View]], dict[str, str]]:
    """Read the cameras of keyframes from the tables.

    Args:
        root: the folder with the tables.
        version: v1.0-trainval, v1.0-mini or v1.0-test.
        keyframes: of this version.

    Returns:
        The views of each keyframe by its token, in the order of ``CHANNELS``; and, by the tokens of keyframes
        that lack some, what is missing.

    Raises:
        DatasetError: a table is missing or damaged, or refers to what is not there.
    """
    folder = root / version
    channels = {
        row["token"]: row["channel"]
        for row in read_table(folder / "sensor.json", "token", "channel")
    }
    mounted: dict[str, dict[str, Any]] = {}
    needed = ("token", "sensor_token", "translation", "rotation", "camera_intrinsic")
    for row in read_table(folder / "calibrated_sensor.json", *needed):
        mounted[row["token"]] = {**row, "channel": channels.get(row["sensor_token"])}
    sensors = {
        token: _pose(folder / "calibrated_sensor.json", row) for token, row in mounted.items()
    }
    shots = _shots(folder, mounted, {keyframe.sample for keyframe in keyframes})
    cars = _car_poses(
        folder,
        {keyframe.ego_pose for keyframe in keyframes}
        | {row["ego_pose_token"] for views in shots.values() for row in views.values()},
    )
    found: dict[str, list[View]] = {}
    lacking: dict[str, str] = {}
    for keyframe in keyframes:
        own = shots.get(keyframe.sample, {})
        missing = [channel for channel in CHANNELS if channel not in own]
        if missing:
            lacking[keyframe.token] = f"has no image of {', '.join(missing)}"
        to_world = cars[keyframe.ego_pose] @ sensors[keyframe.calibrated_sensor]
        found[keyframe.token] = [
            _view(channel, own[channel], mounted, sensors, cars, to_world)
            for channel in CHANNELS
            if channel in own
        ]
    return found, lacking


def _shots(
    folder: Path, mounted: Mapping[str, Mapping[str, Any]], samples: Set[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Row of sample_data.json by sample and camera."""
    shots: dict[str, dict[str, dict[str, Any]]] = {}
    needed = (
        "sample_token", "calibrated_sensor_token", "ego_pose_token", "filename", "is_key_frame",
    )  # fmt: skip
    for row in read_table(folder / "sample_data.json", *needed):
        channel = mounted.get(row["calibrated_sensor_token"], {}).get("channel")
        if row["is_key_frame"] and row["sample_token"] in samples and channel in CHANNELS:
            shots.setdefault(row["sample_token"], {})[channel] = row
    return shots


def _car_poses(folder: Path, tokens: Set[str]) -> dict[str, NDArray[np.float64]]:
    """(4, 4) car to world by token."""
    path = folder / "ego_pose.json"
    found = {
        row["token"]: _pose(path, row)
        for row in read_table(path, "token", "translation", "rotation")
        if row["token"] in tokens
    }
    if len(found) < len(tokens):
        raise DatasetError(
            f"{path}: lacks {len(tokens - set(found))} poses that sample_data.json refers to; unpack the "
            f"metadata again"
        )
    return found


def _view(
    channel: str,
    row: Mapping[str, Any],
    mounted: Mapping[str, Mapping[str, Any]],
    sensors: Mapping[str, NDArray[np.float64]],
    cars: Mapping[str, NDArray[np.float64]],
    to_world: NDArray[np.float64],
) -> View:
    token = row["calibrated_sensor_token"]
    camera_to_world = cars[row["ego_pose_token"]] @ sensors[token]
    return {
        "name": channel,
        "image": row["filename"],
        "height": int(row.get("height") or SIZE[0]),
        "width": int(row.get("width") or SIZE[1]),
        "K": mounted[token]["camera_intrinsic"],
        "pose": (np.linalg.inv(camera_to_world) @ to_world).tolist(),
    }


def write_cameras(
    out: Path, keyframes: Iterable[Keyframe], cameras: Mapping[str, list[View]]
) -> None:
    """Write ``cameras/<scene>.json``: the views of all keyframes of each scene.

    Raises:
        WriteError: the system refuses to.
    """
    scenes: dict[str, dict[str, list[View]]] = {}
    for keyframe in keyframes:
        scenes.setdefault(keyframe.scene, {})[keyframe.token] = cameras[keyframe.token]
    for scene, views in scenes.items():
        with new_file(out / FOLDER / f"{scene}.json") as part:
            part.write_text(json.dumps({"format": FORMAT, "keyframes": views}), encoding="utf-8")


def read_frames(root: Path, scene: str, token: str, images: Path) -> tuple[Frame, ...]:
    """The frames of a keyframe.

    Args:
        root: the folder that ``pointseg-prepare`` was given as ``--out``.
        scene: scene-0001 and so on.
        token: of the keyframe.
        images: the folder with ``samples``.

    Raises:
        DatasetError: the file with the cameras of this scene is missing or damaged.
        ImagesError: a value in it is wrong.
    """
    from pointseg.images.readers.manifest import frames_of

    path = root / FOLDER / f"{scene}.json"
    again = "prepare the dataset again with --images"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"'format' must be {FORMAT}, got {found['format']!r}")
        views = found["keyframes"][token]
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: is missing; {again}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: is damaged ({error!r}); {again}") from error
    return frames_of(path, views, base=images, shared={"pose_direction": "world_to_camera"})


def _pose(path: Path, row: Mapping[str, Any]) -> NDArray[np.float64]:
    """(4, 4) pose from a translation and a quaternion w, x, y, z."""
    from pointseg.images.readers.colmap import rotation

    pose = np.eye(4)
    pose[:3, :3] = rotation([float(value) for value in row["rotation"]], str(path))
    pose[:3, 3] = row["translation"]
    return pose
