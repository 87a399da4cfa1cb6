"""Prepares Structured3D: the perspective views and the panorama of a room become one cloud.

Source: the rules of Pointcept's rooms (Wu 2024, arXiv:2308.09718). Differs: positions stay in the dataset's own
world, x, y, z in metres, where Pointcept's y, x, z mirror it; a view that cannot be read is an error of its room.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
from pointseg.datasets.scene_arrays import save_scene
from pointseg.datasets.structured3d.agreement import DepthView, check_agreement
from pointseg.datasets.structured3d.cameras import (
    centre_of,
    panorama_rays,
    pinhole_rays,
    read_centre,
    read_pinhole,
)
from pointseg.datasets.structured3d.dataset import INVALID_SCENES, NAME, SPLITS, split_of
from pointseg.datasets.structured3d.images import POSE, perspective_views, prepare_images
from pointseg.datasets.structured3d.rgbd import Points, read_rendering, visible_points
from pointseg.geometry.voxels import voxelize

RELEASE, RENDERINGS = "Structured3D", "2D_rendering"
SCENE = re.compile(r"scene_(\d{5})")
ARRAYS = ("coord", "color", "normal", "segment")
VOXEL_M = 0.01
"""Side of the voxels of which one point each is kept."""


@dataclass(frozen=True)
class RoomTask:
    """One room to prepare."""

    folder: Path
    """Its renderings, ``2D_rendering/<room>`` of a scene."""
    images: Path | None = None
    """The same, for its images; None: they are not prepared."""


def prepare(
    source: Path,
    out: Path,
    *,
    images: Path | None = None,
    workers: int = 1,
    report: Report | None = None,
) -> Preparation:
    """Prepare Structured3D.

    Args:
        source: the folder with ``scene_00000`` and so on, or the one above it.
        out: root of the prepared dataset.
        images: the same for the images, which may be ``source``; None: images are not prepared.
        workers: number of processes.
        report: called after each room.

    Raises:
        DatasetError: ``source`` is not Structured3D; see also ``prepare_scenes``.
    """
    base, shown = _release(source), None if images is None else _release(images)
    rooms, left_out = _find_rooms(base)
    if not rooms:
        raise DatasetError(
            f"{source}: must be the folder of Structured3D's unpacked archives with "
            f"scene_00000/{RENDERINGS} and so on, has no room"
        )
    jobs = []
    for split, folder in rooms:
        place = None if shown is None else shown / folder.relative_to(base)
        scene = f"{folder.parent.parent.name}_room_{folder.name}"
        task = RoomTask(folder, place)
        jobs.append(Job(split, scene, task, ARRAYS, cameras=place is not None))
    index = Index(
        dataset=NAME,
        splits={s: tuple(job.scene for job in jobs if job.split == s) for s in SPLITS},
        fields=("color", "normal"),
        images=stored_images(images, out),
    )
    return prepare_scenes(
        prepare_room, jobs, out, index, workers=workers, report=report,
        notes=[*left_out, *_partial(rooms)],
    )  # fmt: skip


def _release(folder: Path) -> Path:
    return folder / RELEASE if (folder / RELEASE).is_dir() else folder


def _find_rooms(base: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """Split and folder of each room, in order; and notes on scenes that are left out."""
    rooms: list[tuple[str, Path]] = []
    invalid: list[str] = []
    others: list[str] = []
    for scene in sorted(path for path in base.glob("scene_*") if path.is_dir()):
        match = SCENE.fullmatch(scene.name)
        split = None if match is None else split_of(int(match[1]))
        if match is None or split is None:
            others.append(scene.name)
        elif int(match[1]) in INVALID_SCENES:
            invalid.append(scene.name)
        else:
            found = sorted(path for path in (scene / RENDERINGS).glob("*") if path.is_dir())
            rooms += [(split, room) for room in found]
    notes = []
    if invalid:
        notes.append(f"left out {len(invalid)} scenes of the errata: {first_names(invalid)}")
    if others:
        notes.append(f"left out {len(others)} folders that are no scenes: {first_names(others)}")
    return rooms, notes


def _partial(rooms: list[tuple[str, Path]]) -> list[str]:
    """Notes on rooms of which one of the two archives is not unpacked."""
    notes = []
    for kind in ("perspective", "panorama"):
        lacking = [
            f"{room.parent.parent.name}/{room.name}"
            for _, room in rooms
            if not (room / kind / "full").is_dir()
        ]
        if lacking:
            notes.append(
                f"{len(lacking)} rooms have no {kind}/full, so their clouds are made without: "
                f"{first_names(lacking)}; to add it, unpack it and delete these rooms from --out"
            )
    return notes


def prepare_room(task: RoomTask, target: Path) -> list[str]:
    """Write the missing arrays and cameras of one room; returns notes.

    Raises:
        UserError: a view is missing or damaged, there is none, or panorama and views do not fit together.
    """
    place = task.images
    cameras = None if place is None else lambda: prepare_images(place, target)
    return complete_scene(target, ARRAYS, lambda: _prepare_points(task.folder, target), cameras)


def _prepare_points(room: Path, target: Path) -> list[str]:
    parts: list[Points] = []
    views: list[DepthView] = []
    for folder in perspective_views(room):
        found = read_rendering(folder)
        camera = read_pinhole(folder / POSE, found.depth_m.shape[:2])
        rays, centre = pinhole_rays(camera), centre_of(camera)
        parts.append(_thin(visible_points(found, rays, centre, closed=False, where=str(folder))))
        views.append((camera, found.depth_m))
    panorama = room / "panorama" / "full"
    if panorama.is_dir():
        found, centre = read_rendering(panorama), read_centre(room / "panorama" / "camera_xyz.txt")
        rays = panorama_rays(found.depth_m.shape[:2])
        around = _thin(visible_points(found, rays, centre, closed=True, where=str(panorama)))
        check_agreement(around["coord"], centre, views, str(room))
        parts.append(around)
    if not parts:
        raise DatasetError(f"{room}: has neither perspective/full nor panorama/full; unpack both")
    try:
        cloud = _thin({name: np.concatenate([part[name] for part in parts]) for name in ARRAYS})
    except ValueError as error:  # views that are far apart
        raise DatasetError(f"{room}: its views do not make one room: {error}") from error
    if not len(cloud["coord"]):
        raise DatasetError(f"{room}: no pixel of its {len(parts)} views has depth and a label")
    save_scene(target, {**cloud, "coord": cloud["coord"].astype(np.float32)})
    return []


def _thin(points: Points) -> Points:
    """The first point of each voxel."""
    if not len(points["coord"]):
        return points
    first = voxelize(points["coord"], VOXEL_M).first
    return {name: values[first] for name, values in points.items()}
