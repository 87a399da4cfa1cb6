"""The points of the labelled frames of a segment: all five scanners, both returns, in the vehicle's frame.

Each row of the lidar table becomes points at once, so that no range image is kept: a segment takes some hundred
megabytes, where its decoded tables have four gigabytes.

Source: the conversion of Pointcept (Wu 2024), from the same values in the older format of the dataset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.waymo.classes import LABEL_MAP
from pointseg.datasets.waymo.range_images import (
    LaserCalibration,
    PixelPoses,
    measured_pixels,
    points_of,
)
from pointseg.datasets.waymo.tables import (
    FRAME,
    LASER,
    LASERS,
    RETURNS,
    TOP,
    Row,
    Table,
    range_image,
    sensor_number,
    transform,
)
from pointseg.scene import IGNORE

IMAGE_FIELDS = tuple(f"{name}.{part}" for name in RETURNS for part in ("values", "shape"))

Arrays = dict[str, NDArray[Any]]
Images = tuple[Any, ...]
"""A range image for each return, None where there is none."""


@dataclass
class Segment:
    """What the points of a segment's frames are made with."""

    folder: Path
    """Folder of the split."""
    name: str
    """Name of the segment."""
    frames: frozenset[int]
    """Timestamps of the frames that are wanted."""
    labelled: bool
    """Whether points get labels."""
    lasers: Mapping[int, LaserCalibration]
    """Calibration of each scanner."""
    vehicle: Mapping[int, NDArray[np.float64]]
    """(4, 4) vehicle to world by frame."""
    moving: Mapping[int, NDArray[np.floating]]
    """(H, W, 6) poses of the pixels of the roof scanner by frame."""
    labels: Mapping[int, Images]
    """(H, W, 2) object and class of these pixels by frame."""
    failed: dict[int, str] = field(default_factory=dict)
    """Frames that cannot be made, and why."""


def labelled_frames(folder: Path, segment: str) -> frozenset[int]:
    """Timestamps of the frames of a segment that have labels, about every fifth.

    Raises:
        DatasetError: the table of labels is missing or damaged.
    """
    table = Table(folder, "lidar_segmentation", "LiDARSegmentationLabelComponent", segment)
    return frozenset(row[FRAME] for row in table.rows((FRAME,), ()))


def open_segment(folder: Path, name: str, frames: frozenset[int], *, labelled: bool) -> Segment:
    """Read all tables of a segment but the range images.

    Args:
        folder: of the split.
        name: of the segment.
        frames: timestamps of the frames that are wanted.
        labelled: whether labels are read.

    Raises:
        DatasetError: a table is missing or damaged.
    """
    failed: dict[int, str] = {}
    vehicle = read_vehicle_poses(folder, name, frames, failed)
    segment = Segment(
        folder, name, frames, labelled, read_lasers(folder, name), vehicle, {}, {}, failed
    )
    poses = Table(folder, "lidar_pose", "LiDARPoseComponent", name)
    only_first = IMAGE_FIELDS[:2]
    segment.moving = {
        frame: images[0]
        for frame, images in _top_images(segment, poses, only_first, channels=6)
        if images[0] is not None
    }
    if labelled:
        table = Table(folder, "lidar_segmentation", "LiDARSegmentationLabelComponent", name)
        segment.labels = dict(_top_images(segment, table, IMAGE_FIELDS, channels=2))
    return segment


def read_lasers(folder: Path, segment: str) -> dict[int, LaserCalibration]:
    """Calibration of each scanner.

    Raises:
        DatasetError: the table is missing or damaged, or lacks the roof scanner.
    """
    table = Table(folder, "lidar_calibration", "LiDARCalibrationComponent", segment)
    beam = "beam_inclination"
    found: dict[int, LaserCalibration] = {}
    for row in table.rows(
        (LASER,), ("extrinsic.transform", f"{beam}.min", f"{beam}.max", f"{beam}.values")
    ):
        values = row[f"{beam}.values"]
        uniform = values is None or not len(values)
        ends = [row[f"{beam}.{end}"] for end in ("min", "max")]
        if uniform and not all(isinstance(end, float) for end in ends):
            raise DatasetError(f"{table.path}: a scanner has no inclinations of its beams")
        found[sensor_number(table, row[LASER], LASERS)] = LaserCalibration(
            transform(table, row["extrinsic.transform"], "'extrinsic.transform'"),
            None if uniform else np.asarray(values, np.float64),
            *(0.0 if end is None else float(end) for end in ends),
        )
    if TOP not in found:
        raise DatasetError(f"{table.path}: lacks the scanner {LASERS[TOP - 1]}")
    return dict(sorted(found.items()))


def read_vehicle_poses(
    folder: Path, segment: str, frames: Set[int], failed: dict[int, str]
) -> dict[int, NDArray[np.float64]]:
    """(4, 4) vehicle to world by frame; reasons of those that are no pose are added to ``failed``.

    Raises:
        DatasetError: the table is missing or damaged.
    """
    table = Table(folder, "vehicle_pose", "VehiclePoseComponent", segment)
    name = "world_from_vehicle.transform"
    found: dict[int, NDArray[np.float64]] = {}
    for row in table.rows((FRAME,), (name,), frames=frames):
        try:
            found[row[FRAME]] = transform(table, row[name], f"'{name}'")
        except DatasetError as error:
            failed[row[FRAME]] = str(error)
    return found


def read_frames(segment: Segment) -> Iterator[tuple[int, Arrays]]:
    """Timestamp and arrays of each wanted frame, as soon as all its scanners are read.

    Frames that cannot be made are left out and noted in ``segment.failed``.

    Raises:
        DatasetError: the table of range images is missing or damaged.
    """
    table = Table(segment.folder, "lidar", "LiDARComponent", segment.name)
    parts: dict[int, dict[int, list[Arrays]]] = {
        frame: {} for frame in segment.frames if frame not in segment.failed
    }
    for row in table.rows((FRAME, LASER), IMAGE_FIELDS, frames=segment.frames):
        frame = row[FRAME]
        if frame in segment.failed:
            continue
        try:
            laser = sensor_number(table, row[LASER], LASERS)
            if laser in parts[frame]:
                raise DatasetError(f"{table.path}: has the scanner {LASERS[laser - 1]} twice")
            parts[frame][laser] = _points_of_row(segment, table, row, laser)
        except (DatasetError, ValueError) as error:
            segment.failed[frame] = str(error)
            del parts[frame]
            continue
        if parts[frame].keys() == segment.lasers.keys():
            yield frame, _joined(parts.pop(frame))
    for frame, found in parts.items():
        lacking = ", ".join(LASERS[laser - 1] for laser in segment.lasers if laser not in found)
        segment.failed[frame] = f"{table.path}: lacks the scanners {lacking}"


def _points_of_row(segment: Segment, table: Table, row: Row, laser: int) -> list[Arrays]:
    """Arrays of the first and of the second return of one scanner."""
    frame = row[FRAME]
    if laser not in segment.lasers:
        raise DatasetError(f"{table.path}: the scanner {LASERS[laser - 1]} is not calibrated")
    moving = None
    if laser == TOP:
        for what, known in (("lidar_pose", segment.moving), ("vehicle_pose", segment.vehicle)):
            if frame not in known:
                raise DatasetError(f"{segment.folder / what / table.path.name}: lacks this frame")
        moving = PixelPoses(segment.moving[frame], segment.vehicle[frame])
    found: list[Arrays] = []
    for number, name in enumerate(RETURNS):
        image = range_image(table, row, name, 4)
        image = np.zeros((1, 1, 4), np.float32) if image is None else image
        measured = (image[..., 0] > 0).any()
        points = points_of(image, segment.lasers[laser], moving) if measured else np.zeros((0, 3))
        rows, columns = measured_pixels(image)
        arrays: Arrays = {
            "coord": points.astype(np.float32),
            "strength": np.tanh(image[rows, columns, 1:2]).astype(np.float32),
            "cell": np.stack(
                [np.full(len(rows), laser), np.full(len(rows), number + 1), rows, columns], axis=1
            ).astype(np.int16),
        }
        if segment.labelled:
            shown = segment.labels.get(frame, (None, None))[number] if laser == TOP else None
            arrays |= _labels_of(segment, shown, image.shape, rows, columns)
        found.append(arrays)
    return found


def _labels_of(
    segment: Segment,
    labels: NDArray[np.int32] | None,
    shape: tuple[int, ...],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> Arrays:
    """Class and object of some pixels, ``IGNORE`` where there is none."""
    unknown = np.full(len(rows), IGNORE, np.int32)
    if labels is None or not len(rows):
        return {"segment": unknown.astype(np.int16), "instance": unknown}
    where = str(segment.folder / "lidar_segmentation" / f"{segment.name}.parquet")
    if labels.shape[:2] != shape[:2]:
        raise DatasetError(
            f"{where}: labels must be of {shape[:2]} pixels as the ranges are, got {labels.shape[:2]}"
        )
    instance, raw = labels[rows, columns].T
    if raw.min() < 0:
        raise DatasetError(f"{where}: ids of classes must be 0 or more, got {raw.min()}")
    return {
        "segment": LABEL_MAP(raw, where).astype(np.int16),
        "instance": np.where(instance > 0, instance, IGNORE).astype(np.int32),
    }


def _joined(parts: Mapping[int, list[Arrays]]) -> Arrays:
    """The first returns of all scanners in their order, then the second returns."""
    ordered = [parts[laser][number] for number in range(2) for laser in sorted(parts)]
    return {name: np.concatenate([part[name] for part in ordered]) for name in ordered[0]}


def _top_images(
    segment: Segment, table: Table, fields: tuple[str, ...], *, channels: int
) -> Iterator[tuple[int, Images]]:
    """Timestamp and images of the roof scanner for each frame; damaged ones are noted as failed."""
    names = [name for name in RETURNS if f"{name}.values" in fields]
    for row in table.rows((FRAME, LASER), fields, frames=segment.frames):
        try:
            if sensor_number(table, row[LASER], LASERS) == TOP:
                yield row[FRAME], tuple(range_image(table, row, n, channels) for n in names)
        except DatasetError as error:
            segment.failed[row[FRAME]] = str(error)
