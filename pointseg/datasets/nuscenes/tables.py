"""Reads nuScenes' tables row by row: some are too large to be loaded as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointseg.datasets.errors import DatasetError

CHUNK = 1 << 22
"""Characters that are read at a time."""
LONGEST_ROW = 1 << 24
"""Characters of a row, at most."""
LIDAR = "LIDAR_TOP"
_BLANK = " \t\r\n"


@dataclass(frozen=True)
class Keyframe:
    """One annotated sweep of the laser scanner."""

    token: str
    """Token of its sample_data, which names its label file and its predictions in a submission."""
    sample: str
    """Token of its sample, which the six images belong to as well."""
    scene: str
    """Name of its scene: scene-0001 and so on."""
    timestamp: int
    """Time in microseconds."""
    points: str
    """File of its points, below the root."""
    calibrated_sensor: str
    """Token of the pose of the scanner on the car."""
    ego_pose: str
    """Token of the pose of the car in the world at this time."""
    labels: str | None
    """File of its labels, below the root; None if it has none."""


def read_keyframes(root: Path, version: str) -> list[Keyframe]:
    """All lidar keyframes of a version, by scene and time.

    Args:
        root: the folder with ``v1.0-trainval`` (or another version), ``samples`` and ``lidarseg``.
        version: v1.0-trainval, v1.0-mini or v1.0-test.

    Raises:
        DatasetError: a table is missing or damaged, or refers to what is not there.
    """
    folder = root / version
    scenes = {
        row["token"]: row["name"] for row in read_table(folder / "scene.json", "token", "name")
    }
    samples = {
        row["token"]: row["scene_token"]
        for row in read_table(folder / "sample.json", "token", "scene_token")
    }
    lidars = {
        row["token"]
        for row in read_table(folder / "sensor.json", "token", "channel")
        if row["channel"] == LIDAR
    }
    mounted = {
        row["token"]
        for row in read_table(folder / "calibrated_sensor.json", "token", "sensor_token")
        if row["sensor_token"] in lidars
    }
    labels = {}
    if (folder / "lidarseg.json").is_file():
        rows = read_table(folder / "lidarseg.json", "sample_data_token", "filename")
        labels = {row["sample_data_token"]: row["filename"] for row in rows}
    found = []
    needed = (
        "token", "sample_token", "calibrated_sensor_token", "ego_pose_token", "filename",
        "is_key_frame", "timestamp",
    )  # fmt: skip
    for row in read_table(folder / "sample_data.json", *needed):
        if not row["is_key_frame"] or row["calibrated_sensor_token"] not in mounted:
            continue
        scene = scenes.get(samples.get(row["sample_token"], ""))
        if scene is None:
            raise DatasetError(
                f"{folder}: sample_data '{row['token']}' belongs to no sample and scene; unpack the metadata again"
            )
        found.append(
            Keyframe(
                token=row["token"],
                sample=row["sample_token"],
                scene=scene,
                timestamp=int(row["timestamp"]),
                points=row["filename"],
                calibrated_sensor=row["calibrated_sensor_token"],
                ego_pose=row["ego_pose_token"],
                labels=labels.get(row["token"]),
            )
        )
    return sorted(found, key=lambda keyframe: (keyframe.scene, keyframe.timestamp))


def read_table(path: Path, *needed: str) -> Iterator[dict[str, Any]]:
    """The rows of a table, one at a time.

    Args:
        path: a JSON file that holds a list of objects; some are over a gigabyte.
        needed: keys that every row must have.

    Raises:
        DatasetError: the file is missing, is no such list, or a row lacks a key.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: is missing; unpack nuScenes' metadata there")
    number = -1
    for number, row in enumerate(_objects(path)):
        lacking = [key for key in needed if key not in row]
        if lacking:
            raise DatasetError(f"{path}: row {number} lacks {', '.join(lacking)}")
        yield row
    if number < 0:
        raise DatasetError(f"{path}: holds no rows")


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list, with a chunk of the text in memory."""
    decode = json.JSONDecoder().raw_decode
    with open(path, encoding="utf-8") as stream:
        text, at, opened = "", 0, False
        try:
            while True:
                while at < len(text) and text[at] in _BLANK:
                    at += 1
                if at < len(text) and text[at] == "]" and opened:
                    return
                if at < len(text) and text[at] in ("," if opened else "["):
                    opened, at = True, at + 1
                    continue
                try:
                    if at == len(text):
                        raise ValueError("the list does not end")
                    row, at = decode(text, at)
                except ValueError as error:  # perhaps its end is in the next chunk
                    more = stream.read(CHUNK) if len(text) - at < LONGEST_ROW else ""
                    if not more:
                        raise DatasetError(
                            f"{path}: is cut off or damaged: {error}; unpack it again"
                        ) from error
                    text, at = text[at:] + more, 0
                    continue
                if not opened or not isinstance(row, dict):
                    raise DatasetError(f"{path}: must hold a list of objects, holds {row!r:.40}")
                yield row
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path}: is damaged: {error}") from error
