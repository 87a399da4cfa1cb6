"""Prepares S3DIS: the text files of objects become one cloud per room."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.index import Index, stored_images
from pointseg.datasets.prepare_scenes import (
    Job,
    Preparation,
    Report,
    complete_scene,
    first_names,
    prepare_scenes,
)
from pointseg.datasets.s3dis.dataset import AREAS, CLASSES, NAME
from pointseg.datasets.s3dis.rooms import turn_of_room
from pointseg.datasets.scene_arrays import save_scene
from pointseg.files.table.errors import numpy_reason

if TYPE_CHECKING:
    from pointseg.datasets.s3dis.images import RoomImages

RELEASE = "Stanford3dDataset_v1.2"
ANNOTATIONS = "Annotations"
ANGLES = (0, 90, 180, 270)
CLUTTER = CLASSES.names.index("clutter")
LABELS = ("segment", "instance")
NORMALS = ("estimate", "none")

# Two files of the release have a stray control byte, in some copies: "103.0\x100000", "185\x00187".
DAMAGED = {("Area_5", "office_19", "ceiling"), ("Area_5", "hallway_6", "ceiling")}
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class RoomTask:
    """One room to prepare."""

    area: str
    """Its area."""
    room: str
    """Its name."""
    files: tuple[Path, ...]
    """The points of each object."""
    angle: int | None
    """Angle against the axes in degrees, by which the room is aligned; None: it stays as it is."""
    normals: bool
    """Whether normals are estimated."""
    images: RoomImages | None = None
    """Its images; None: they are not prepared."""

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of its arrays."""
        return ("coord", "color", *(("normal",) if self.normals else ()), *LABELS)


def prepare(
    source: Path,
    out: Path,
    *,
    align: bool = False,
    normals: str = "estimate",
    images: Path | None = None,
    workers: int = 1,
    report: Report | None = None,
) -> Preparation:
    """Prepare S3DIS.

    Args:
        source: the folder with ``Area_1`` to ``Area_6``, or the one above it.
        out: root of the prepared dataset.
        align: rotate each room so that its walls follow the axes.
        normals: estimate (from the points), or none.
        images: the folder of 2D-3D-S with ``area_1`` and so on; None: images are not prepared.
        workers: number of processes.
        report: called after each scene.

    Raises:
        DatasetError: ``source`` is not S3DIS, its angles are missing; see also ``prepare_scenes``.
        ValueError: ``normals`` is something else.
    """
    if normals not in NORMALS:
        raise ValueError(f"prepare: 'normals' must be one of {', '.join(NORMALS)}, got {normals!r}")
    base = source / RELEASE if (source / RELEASE).is_dir() else source
    jobs, notes = _jobs(base, align=align, normals=normals == "estimate", images=images)
    if not jobs:
        raise DatasetError(
            f"{source}: must be {RELEASE} with Area_1/<room>/{ANNOTATIONS} and so on, has no room"
        )
    without = [job.name for job in jobs if not job.cameras]
    if images is not None and without:
        notes.append(f"{len(without)} rooms have no images: {first_names(without)}")
    index = Index(
        dataset=NAME,
        splits={area: tuple(j.scene for j in jobs if j.split == area) for area in AREAS},
        fields=("color", "normal") if normals == "estimate" else ("color",),
        images=stored_images(images, out),
        options={"align": align, "normals": normals},
    )
    return prepare_scenes(
        prepare_room, jobs, out, index, workers=workers, report=report, notes=notes
    )


def _jobs(
    base: Path, *, align: bool, normals: bool, images: Path | None
) -> tuple[list[Job[RoomTask]], list[str]]:
    """All rooms to prepare, and notes on missing areas."""
    images_of = _images_of_rooms(images)
    jobs: list[Job[RoomTask]] = []
    notes: list[str] = []
    for area in AREAS:
        rooms = sorted(p for p in (base / area).glob("*") if (p / ANNOTATIONS).is_dir())
        if not rooms:
            notes.append(f"{area}: is missing")
            continue
        angles = _angles(base / area, [room.name for room in rooms]) if align else {}
        for folder in rooms:
            angle = angles.get(folder.name)
            task = RoomTask(
                area=area,
                room=folder.name,
                files=_object_files(folder / ANNOTATIONS),
                angle=angle,
                normals=normals,
                images=images_of(area, folder.name, angle),
            )
            cameras = task.images is not None
            jobs.append(Job(area, folder.name, task, task.arrays, cameras=cameras))
    return jobs, notes


def _angles(area: Path, rooms: list[str]) -> dict[str, int]:
    """The angle of each room of an area."""
    path = area / f"{area.name}_alignmentAngle.txt"
    angles = read_angles(path)
    for room in rooms:
        if room not in angles:
            raise DatasetError(f"{path}: has no angle for room '{room}'")
    return angles


def prepare_room(task: RoomTask, target: Path) -> list[str]:
    """Write the missing arrays and cameras of one room; returns notes.

    Raises:
        UserError: there are no annotations, or one is damaged; a camera's pose is damaged.
    """

    def save_cameras() -> list[str]:
        from pointseg.datasets.s3dis.images import prepare_images

        assert task.images is not None
        return prepare_images(task.images, target)

    cameras = None if task.images is None else save_cameras
    return complete_scene(target, task.arrays, lambda: _prepare_points(task, target), cameras)


def _prepare_points(task: RoomTask, target: Path) -> list[str]:
    tables, segment, instance = [], [], []
    notes: list[str] = []
    others: Counter[str] = Counter()
    for number, path in enumerate(task.files):
        name = path.stem.rpartition("_")[0] or path.stem
        kind = CLASSES.names.index(name) if name in CLASSES.names else CLUTTER
        if name not in CLASSES.names:
            others[name] += 1
        table, repaired = read_annotation(path, task.area, task.room, name)
        notes += repaired
        tables.append(table)
        segment.append(np.full(len(table), kind, np.int16))
        instance.append(np.full(len(table), number, np.int16))
    if not tables:
        raise DatasetError(f"{task.area}/{task.room}: has no annotations")
    if others:
        names = ", ".join(f"{name} ({count})" for name, count in others.items())
        notes.append(f"objects of other classes become clutter: {names}")
    rows = np.concatenate(tables)
    xyz = rows[:, :3] if task.angle is None else align_room(rows[:, :3], task.angle)
    arrays: dict[str, NDArray[Any]] = {
        "coord": xyz.astype(np.float32),
        "color": np.rint(rows[:, 3:]).astype(np.uint8),
        "segment": np.concatenate(segment),
        "instance": np.concatenate(instance),
    }
    if task.normals:
        from pointseg.geometry.normals import estimate_normals

        inside = (xyz.min(0) + xyz.max(0)) / 2  # normals of walls point into the room
        arrays["normal"] = estimate_normals(arrays["coord"], sensor_position=inside)
    save_scene(target, arrays)
    return notes


def read_annotation(
    path: Path, area: str, room: str, name: str
) -> tuple[NDArray[np.float64], list[str]]:
    """Read the points of one object.

    Repairs the one known defect of the release: a stray control byte in the ceilings of two rooms of Area 5.

    Args:
        path: file with lines of x, y, z, red, green, blue.
        area: area of the room.
        room: name of the room.
        name: class name of the object.

    Returns:
        (N, 6) values, N >= 1; notes on repairs.

    Raises:
        DatasetError: any other defect.
    """
    data, notes = path.read_bytes(), []
    found = list(CONTROL.finditer(data))
    if found:
        line = data.count(b"\n", 0, found[0].start()) + 1
        if len(found) > 1 or (area, room, name) not in DAMAGED:
            raise DatasetError(
                f"{path}: is damaged: line {line} has the control byte 0x{data[found[0].start()]:02x}, one of "
                f"{len(found)}; download it again"
            )
        at = found[0].start()
        # 0x00 stands where the blank between two numbers belongs, others within a number
        is_blank = data[at] == 0
        data = data[:at] + (b" " if is_blank else b"") + data[at + 1 :]
        done = "was taken as a blank" if is_blank else "was removed"
        notes.append(f"{path.name}, line {line}: a stray control byte {done} (known defect)")
    if not data.strip():
        raise DatasetError(f"{path}: is empty; download it again")
    try:
        table = np.loadtxt(io.BytesIO(data), comments=None, ndmin=2, encoding="ascii")
    except ValueError as error:
        raise DatasetError(
            f"{path}: is damaged: {numpy_reason(error)}; download it again"
        ) from error
    if table.shape[1] != 6 or not np.isfinite(table).all():
        raise DatasetError(
            f"{path}: each line must have six finite numbers, x y z r g b, it has {table.shape[1]} columns"
            + ("" if np.isfinite(table).all() else " with numbers that are not finite")
        )
    if table[:, 3:].min() < 0 or table[:, 3:].max() > 255:
        raise DatasetError(
            f"{path}: colours must be 0 to 255, got {table[:, 3:].min():g} to {table[:, 3:].max():g}"
        )
    return table, notes


def read_angles(path: Path) -> dict[str, int]:
    """Read the angle of each room of an area against the axes, in degrees.

    Raises:
        DatasetError: the file is missing, or a line is not a room with 0, 90, 180 or 270.
    """
    if not path.is_file():
        raise DatasetError(
            f"{path}: is missing, but --align needs it; take it from the official release, or leave --align out"
        )
    angles = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or not words[1].isdecimal() or int(words[1]) not in ANGLES:
            raise DatasetError(
                f"{path}: lines must be a room and one of {ANGLES}, got {line[:60]!r}"
            )
        angles[words[0]] = int(words[1])
    return angles


def align_room(xyz: NDArray[np.float64], angle: int) -> NDArray[np.float64]:
    """(N, 3) positions rotated about z by (2 - angle / 180) pi around the middle of their box."""
    centre = (xyz.min(0) + xyz.max(0)) / 2
    return (xyz - centre) @ turn_of_room(angle).T + centre


def _images_of_rooms(images: Path | None) -> Callable[[str, str, int | None], RoomImages | None]:
    """A function from area, room and angle to the images of a room."""
    if images is None:
        return lambda area, room, angle: None
    from pointseg.datasets.s3dis.images import RoomImages, find_rooms

    found = find_rooms(images)

    def of_room(area: str, room: str, angle: int | None) -> RoomImages | None:
        files = found.get((area, room))
        return None if files is None else RoomImages(files, angle)

    return of_room


def _object_files(folder: Path) -> tuple[Path, ...]:
    """The files of a room's objects in natural order, without hidden ones."""
    files = (path for path in folder.glob("*.txt") if not path.name.startswith("."))
    return tuple(sorted(files, key=_natural))


def _natural(path: Path) -> tuple[str, int]:
    """chair_2 before chair_10."""
    name, _, number = path.stem.rpartition("_")
    return name, int(number) if number.isdecimal() else -1
