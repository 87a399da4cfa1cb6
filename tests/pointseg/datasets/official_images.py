"""Writes the image side of the official formats: cameras, poses and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pointseg.datasets.nuscenes.cameras import CHANNELS


def quaternion(rotation: NDArray[np.float64]) -> list[float]:
    """w, x, y, z of a (3, 3) rotation: the eigenvector of the largest eigenvalue of Bar-Itzhack's matrix."""
    (a, b, c), (d, e, f), (g, h, i) = rotation.tolist()
    matrix = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ]
    )
    found: NDArray[np.float64] = np.linalg.eigh(matrix)[1][:, -1]
    return found.tolist()


def turn_z(degrees: float, shift: Sequence[float] = (0, 0, 0)) -> NDArray[np.float64]:
    """(4, 4)"""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    pose = np.eye(4)
    pose[:2, :2], pose[:3, 3] = [[cos, -sin], [sin, cos]], shift
    return pose


def write_picture(path: Path, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def write_depth(path: Path, values: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint16)).save(path)


def add_cameras(
    root: Path,
    version: str,
    *,
    lidar: tuple[NDArray[np.float64], NDArray[np.float64]],
    cameras: Mapping[str, tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64], str]],
    size: tuple[int, int] = (900, 1600),
) -> None:
    """Give all keyframes of ``write_nuscenes`` cameras.

    Args:
        root: where it wrote.
        version: of the tables.
        lidar: the scanner on the car, and the car in the world, (4, 4) each.
        cameras: for each channel K, the camera on the car, the car when it fired, and the file of its image.
        size: of the images.
    """
    folder = root / version

    def rows(name: str) -> list[dict[str, Any]]:
        return json.loads((folder / f"{name}.json").read_text())

    def placed(pose: NDArray[np.float64]) -> dict[str, Any]:
        return {"translation": pose[:3, 3].tolist(), "rotation": quaternion(pose[:3, :3])}

    sensors = [row for row in rows("sensor") if row["token"] == "lidar"]
    mounted = [row for row in rows("calibrated_sensor") if row["sensor_token"] == "lidar"]
    mounted[0].update(placed(lidar[0]))
    sweeps = [
        row for row in rows("sample_data") if row["calibrated_sensor_token"] == "mounted lidar"
    ]
    poses = [{"token": row["ego_pose_token"], **placed(lidar[1])} for row in sweeps]
    shots = []
    for channel, (intrinsic, on_car, car, image) in cameras.items():
        sensors.append({"token": channel, "channel": channel, "modality": "camera"})
        mounted.append(
            {
                "token": f"mounted {channel}",
                "sensor_token": channel,
                "camera_intrinsic": np.asarray(intrinsic).tolist(),
                **placed(on_car),
            }
        )
        for row in sweeps:
            token = f"{channel} {row['token']}"
            poses.append({"token": token, **placed(car)})
            shots.append(
                {
                    **row,
                    "token": token,
                    "ego_pose_token": token,
                    "calibrated_sensor_token": f"mounted {channel}",
                    "filename": image,
                    "height": size[0],
                    "width": size[1],
                }
            )
    tables = {
        "sensor": sensors,
        "calibrated_sensor": mounted,
        "sample_data": sweeps + shots,
        "ego_pose": poses,
    }
    for name, found in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(found))
    for channel in CHANNELS:
        (root / "samples" / channel).mkdir(parents=True, exist_ok=True)
