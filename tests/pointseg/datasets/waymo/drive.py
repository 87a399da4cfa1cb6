"""A drive past two walls, in the Parquet tables of the Waymo Open Dataset, version 2.

Range images, labels, camera images and projections come from one geometry: ground at z = 0, a wall across the
road at 20 m, of which the second return shows what is behind, at 25 m. The car drives on while it scans. Formulas are
those of the dataset's documentation, not of the code under test.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

SEGMENT = "10023947602400723454_1120_000_1140_000"
TIMES = (1_000_000, 1_100_000, 1_200_000)
"""Timestamps of the frames."""
LABELLED = (TIMES[0], TIMES[2])
ROAD, BUILDING, VEGETATION = 18, 14, 15
"""Ids of ground, wall and what is behind it."""
WALL_M, BEHIND_M = 20.0, 25.0
COLORS = {ROAD: (60, 60, 60), BUILDING: (220, 30, 30), 0: (30, 30, 220)}
"""Of ground, wall and sky."""
TOP_SHAPE, OTHER_SHAPE = (8, 40), (4, 16)
TOP_BEAMS = np.deg2rad([-20, -15, -11, -8, -5, -3, -1, 2.0])
"""Ascending, not uniform."""
WIDTH, TALL, LOW = 48, 1280, 886
"""Of images; the side cameras' are low."""
FOCAL = 24.0
SHIFT = 3.0
"""Pixels by which the shipped projection is further to the right than a global shutter has it."""
Matrix = NDArray[np.float64]


def pose(yaw_deg: float, x: float, y: float, z: float) -> Matrix:
    matrix = np.eye(4)
    cos, sin = np.cos(np.deg2rad(yaw_deg)), np.sin(np.deg2rad(yaw_deg))
    matrix[:2, :2], matrix[:3, 3] = [[cos, -sin], [sin, cos]], (x, y, z)
    return matrix


ORIGIN = pose(30, 30_000, -20_000, 50)
"""From the coordinates of the walls to the world."""
LASERS = {
    1: pose(10, 1.5, 0, 2), 2: pose(0, 4, 0, 0.7), 3: pose(90, 3, 1, 0.7), 4: pose(-90, 3, -1, 0.7),
    5: pose(180, -1, 0, 0.7),
}  # fmt: skip
CAMERAS = {
    number: pose(yaw, 1.5, 0, 2)
    for number, yaw in zip(range(1, 6), (0, 45, -45, 90, -90), strict=True)
}


def vehicle(time: int, seconds: float = 0.0) -> Matrix:
    """Vehicle to walls, some seconds after the middle of a frame: 10 m/s ahead, and turning to the left."""
    number = (time - TIMES[0]) / 100_000
    return pose(20 * seconds, number + 10 * seconds, 0.2, 0)


def cast(origins: Matrix, rays: Matrix) -> tuple[Matrix, NDArray[Any]]:
    """How many times a ray goes to ground or wall, infinite for the sky, and the id there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        down = np.where(rays[..., 2] < 0, -origins[..., 2] / rays[..., 2], np.inf)
        ahead = np.where(rays[..., 0] > 0, (WALL_M - origins[..., 0]) / rays[..., 0], np.inf)
    hit = np.minimum(down, ahead)
    return hit, np.where(np.isinf(hit), 0, np.where(down < ahead, ROAD, BUILDING))


def scan(laser: int, time: int) -> dict[str, Any]:
    """Range images, labels, pixel poses and projections of one scanner."""
    height, width = TOP_SHAPE if laser == 1 else OTHER_SHAPE
    beams = TOP_BEAMS if laser == 1 else np.deg2rad(-30 + (np.arange(height) + 0.5) / height * 40)
    mounted = LASERS[laser]
    yaw = np.arctan2(mounted[1, 0], mounted[0, 0])
    azimuth = (2 * (width - np.arange(width) - 0.5) / width - 1) * np.pi - yaw
    inc, az = np.broadcast_arrays(beams[::-1][:, None], azimuth[None])
    local = np.stack([np.cos(az) * np.cos(inc), np.sin(az) * np.cos(inc), np.sin(inc)], -1)
    ranges = np.full((2, height, width), -1.0)
    ids = np.zeros((2, height, width), int)
    poses, shown = np.zeros((height, width, 6)), np.zeros((2, height, width, 6))
    for column in range(width):
        # other scanners are given as if measured at once
        moment = 0.1 * (column / width - 0.5) if laser == 1 else 0.0
        car = vehicle(time, moment)
        world = ORIGIN @ car
        poses[:, column] = [0, 0, np.arctan2(world[1, 0], world[0, 0]), *world[:3, 3]]
        turn = (car @ mounted)[:3, :3]
        start = np.broadcast_to((car @ mounted)[:3, 3], (height, 3))
        rays = local[:, column] @ turn.T
        hit, kind = cast(start, rays)
        ranges[0, :, column] = np.where(hit < 60, hit, -1)
        ids[0, :, column] = np.where(hit < 60, kind, 0)
        through = (kind == BUILDING) & (hit < 60)
        farther = (BEHIND_M - start[:, 0]) / np.where(through, rays[:, 0], 1)
        ranges[1, :, column] = np.where(through, farther, 0)
        ids[1, :, column] = np.where(through, VEGETATION, 0)
        for number in range(2):
            where = start + rays * ranges[number, :, column, None]
            shown[number, :, column] = project(where, time)
    return {"ranges": ranges, "ids": ids, "poses": poses, "shown": shown}


def project(points: Matrix, time: int) -> Matrix:
    """(N, 6) camera, x, y of the first projection, and of another one that must not be used."""
    found = np.zeros((len(points), 6))
    for number in reversed(CAMERAS):
        to_walls = camera_pose(number, time)
        local = (points - to_walls[:3, 3]) @ to_walls[:3, :3]  # x forward, y left, z up
        with np.errstate(divide="ignore", invalid="ignore"):
            x = WIDTH / 2 - FOCAL * local[:, 1] / local[:, 0]
            y = middle(number) - FOCAL * local[:, 2] / local[:, 0]
        inside = (local[:, 0] > 0) & (x >= 0) & (x < WIDTH - SHIFT) & (y >= 0) & (y < high(number))
        found[inside, 3:] = found[inside, :3]
        found[inside, :3] = np.stack([np.full(len(x), number), x + SHIFT, y], 1)[inside]
    return found


def high(camera: int) -> int:
    return TALL if camera <= 3 else LOW


def middle(camera: int) -> float:
    return 900.0 if camera <= 3 else 500.0


def image_time(camera: int) -> float:
    return 0.01 * camera


def camera_pose(camera: int, time: int) -> Matrix:
    """Camera to walls when its image was taken."""
    return vehicle(time, image_time(camera)) @ CAMERAS[camera]


def picture(camera: int, time: int) -> bytes:
    """JPEG of ground, wall and sky."""
    to_walls = camera_pose(camera, time)
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(high(camera)) + 0.5)
    rays = np.stack([np.ones(x.shape), (WIDTH / 2 - x) / FOCAL, (middle(camera) - y) / FOCAL], -1)
    _, kind = cast(np.broadcast_to(to_walls[:3, 3], rays.shape), rays @ to_walls[:3, :3].T)
    pixels = np.zeros((*x.shape, 3), np.uint8)
    for number, color in COLORS.items():
        pixels[kind == number] = color
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def two_returns(images: list[NDArray[Any] | None], kind: Any) -> dict[str, Any]:
    """Columns of one row with a range image for each return."""
    found: dict[str, Any] = {}
    for number, image in enumerate(images, 1):
        stem = f"range_image_return{number}"
        found[f"{stem}.values"] = None if image is None else image.astype(kind).ravel().tolist()
        found[f"{stem}.shape"] = None if image is None else list(image.shape)
    return found


TYPES = {"LiDARSegmentationLabelComponent": pa.int32()}


def write_table(path: Path, component: str, rows: list[dict[str, Any]]) -> None:
    """One Parquet file with the rows in another order, two in a row group."""
    order = np.random.default_rng(0).permutation(len(rows))
    number = TYPES.get(component, pa.float32())
    fields = []
    for key in rows[0]:
        sample = next((row[key] for row in rows if row[key] is not None), None)
        if key.startswith("key."):
            kind = {str: pa.string()}.get(type(sample), pa.int64() if "time" in key else pa.int8())
        elif key.endswith(".shape"):
            kind = pa.list_(pa.int32())
        elif isinstance(sample, list):
            kind = pa.list_(number if key.endswith("n1.values") or "n2" in key else pa.float64())
        elif isinstance(sample, bytes):
            kind = pa.binary()
        else:
            kind = pa.int32() if isinstance(sample, int) else pa.float64()
        name = key if key.startswith("key.") else f"[{component}].{key}"
        fields.append((name, kind, [rows[index][key] for index in order]))
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: pa.array(values, kind) for name, kind, values in fields}
    pq.write_table(pa.table(columns), path, row_group_size=2)


def write_drive(root: Path, folder: str = "training", segment: str = SEGMENT) -> Path:
    """All tables of a segment; returns the folder of the split."""
    split = root / folder

    def keys(**more: Any) -> dict[str, Any]:
        return {"key.segment_context_name": segment} | {f"key.{k}": v for k, v in more.items()}

    tables: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def add(tag: str, component: str, row: dict[str, Any]) -> None:
        tables.setdefault((tag, component), []).append(row)

    for time in TIMES:
        at = {"frame_timestamp_micros": time}
        add("vehicle_pose", "VehiclePoseComponent", {
            **keys(**at), "world_from_vehicle.transform": (ORIGIN @ vehicle(time)).ravel().tolist(),
        })  # fmt: skip
        for laser in LASERS:
            found, who = scan(laser, time), keys(**at, laser_name=laser)
            images = []
            for ranges in found["ranges"]:
                image = np.zeros((*ranges.shape, 4))
                image[..., 0], image[..., 1] = ranges, 0.5
                images.append(image)
            if laser == 5:
                images[1] = None  # a return may be null
            add("lidar", "LiDARComponent", {**who, **two_returns(images, np.float32)})
            add("lidar_camera_projection", "LiDARCameraProjectionComponent",
                {**who, **two_returns(list(found["shown"]), np.float32)})  # fmt: skip
            if laser == 1:
                add("lidar_pose", "LiDARPoseComponent",
                    {**who, **two_returns([found["poses"]], np.float64)})  # fmt: skip
            if laser == 1 and time in LABELLED:
                labels = [np.stack([np.where(i == BUILDING, 7, 0), i], -1) for i in found["ids"]]
                add("lidar_segmentation", "LiDARSegmentationLabelComponent",
                    {**who, **two_returns(labels, np.int32)})  # fmt: skip
        for camera in CAMERAS:
            car = ORIGIN @ vehicle(time, image_time(camera))
            add("camera_image", "CameraImageComponent", {
                **keys(**at, camera_name=camera), "image": picture(camera, time),
                "pose.transform": car.ravel().tolist(),
            })  # fmt: skip
    for laser, mounted in LASERS.items():
        add("lidar_calibration", "LiDARCalibrationComponent", {
            **keys(laser_name=laser), "extrinsic.transform": mounted.ravel().tolist(),
            "beam_inclination.min": np.deg2rad(-30.0), "beam_inclination.max": np.deg2rad(10.0),
            "beam_inclination.values": TOP_BEAMS.tolist() if laser == 1 else None,
        })  # fmt: skip
    for camera, mounted in CAMERAS.items():
        intrinsics = dict.fromkeys(("k1", "k2", "p1", "p2", "k3"), 0.0)
        intrinsics |= {"f_u": FOCAL, "f_v": FOCAL, "c_u": WIDTH / 2, "c_v": middle(camera)}
        add("camera_calibration", "CameraCalibrationComponent", {
            **keys(camera_name=camera), **{f"intrinsic.{k}": v for k, v in intrinsics.items()},
            "extrinsic.transform": mounted.ravel().tolist(), "width": WIDTH, "height": high(camera),
        })  # fmt: skip
    for (tag, component), rows in tables.items():
        write_table(split / tag / f"{segment}.parquet", component, rows)
    return split
