"""From ScanNet's distribution to arrays: the cleaned mesh, its normals, labels for 20 and 200 classes, objects.

Positions stay as they are in the mesh, the world of the camera poses in the ``.sens`` stream: the axis
alignment is not applied.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.prepare_scenes import Job, Preparation, Report, prepare_scenes
from pointseg.datasets.prepared import (
    CAMERAS,
    Index,
    find_index,
    is_saved,
    relative_source,
    save_scene,
)
from pointseg.datasets.scannet import classes200
from pointseg.datasets.scannet.dataset import IMAGE_SIZE, NAME, NYU40_IDS, OFFICIAL_COUNTS, split_of
from pointseg.files import read_cloud, read_faces
from pointseg.scene import IGNORE

if TYPE_CHECKING:
    from pointseg.datasets.scannet.images import ImageTask

LABEL_TABLE = "scannetv2-labels.combined.tsv"
FOLDERS = ("scans", "scans_test")
MESH, SEGMENTS, OBJECTS = "_vh_clean_2.ply", "_vh_clean_2.0.010000.segs.json", ".aggregation.json"
POINTS = ("coord", "color", "normal")
LABELS = ("segment20", "segment200", "instance")

Classes = Mapping[str, tuple[int, int]]
"""Training index in both class lists for each name that annotators used."""


@dataclass(frozen=True)
class ScanTask:
    """One scan to prepare."""

    folder: Path
    """Where its official files lie."""
    classes: Classes | None
    """None for scans without labels."""
    images: ImageTask | None = None
    """What to do about its images; None: nothing."""


def prepare(
    source: Path,
    out: Path,
    *,
    images: Path | None = None,
    image_size: tuple[int, int] | None = IMAGE_SIZE,
    workers: int = 1,
    report: Report | None = None,
) -> Preparation:
    """Prepare ScanNet for both class lists.

    Args:
        source: the folder with ``scans``, ``scans_test`` and the label table.
        out: root of the prepared dataset.
        images: where the ``.sens`` streams or the extracted frames of the scans lie, which may be ``source``;
            of streams every tenth frame is exported, about 25 GB. None: images are not prepared.
        image_size: height and width of exported images; None: as they are.
        workers: processes.
        report: told about progress.

    Raises:
        DatasetError: ``source`` is not ScanNet; see also ``prepare_scenes``.
    """
    scans: dict[str, Path] = {}
    strangers: list[str] = []
    for parent in FOLDERS:
        for folder in sorted(p for p in source.glob(f"{parent}/*") if p.is_dir()):
            name = folder.name
            if split_of(name) is None or name in scans:
                strangers.append(f"{parent}/{name}")
            else:
                scans[name] = folder
    if not scans:
        raise DatasetError(
            f"{source}: must be the folder of ScanNet's download with scans/scene0000_00 and so on, holds none"
        )
    classes = read_label_table(source / LABEL_TABLE)
    jobs: list[Job[ScanTask]] = []
    without: list[str] = []
    for split in OFFICIAL_COUNTS:
        for name, folder in sorted(scans.items()):
            if split_of(name) == split:
                labelled = split != "test"
                shown = _images_of(folder, images, image_size)
                if images is not None and shown is None:
                    without.append(name)
                task = ScanTask(folder, classes if labelled else None, shown)
                arrays = POINTS + LABELS if labelled else POINTS
                files = () if shown is None else (CAMERAS,)
                jobs.append(Job(split, name, task, arrays, files))
    if images is not None and len(without) == len(jobs):
        raise DatasetError(
            f"{images}: holds neither .sens streams nor extracted frames (color, pose, intrinsic) of any scan; "
            f"name the folder that holds those of {jobs[0].scene}"
        )
    before = find_index(out)
    index = Index(
        dataset=NAME,
        splits={
            split: tuple(j.scene for j in jobs if j.split == split) for split in OFFICIAL_COUNTS
        },
        fields=("color", "normal"),
        images=(before.images if before else None)
        if images is None
        else relative_source(images, out),
    )
    notes = [
        f"{split}: {len(index.splits[split])} of the official {count} scans are there"
        for split, count in OFFICIAL_COUNTS.items()
        if len(index.splits[split]) != count
    ]
    if without:
        notes.append(f"{len(without)} scans have no images: {', '.join(without[:10])}")
    if strangers:
        notes.append(
            f"left out {len(strangers)} folders that are not in the official lists, or twice: "
            + ", ".join(strangers[:10])
            + (", ..." if len(strangers) > 10 else "")
        )
    return prepare_scenes(
        prepare_scan, jobs, out, index, workers=workers, report=report, notes=notes
    )


def prepare_scan(task: ScanTask, target: Path) -> list[str]:
    """Write what is not there yet of the arrays and images of one scan; returns notes.

    Raises:
        DatasetError, CloudFileError: a file is missing, damaged, or does not fit the others.
    """
    labelled = task.classes is not None
    notes: list[str] = []
    if not is_saved(target, POINTS + LABELS if labelled else POINTS):
        notes += _prepare_points(task, target)
    if task.images is not None and not (target / CAMERAS).is_file():
        from pointseg.datasets.scannet.images import prepare_images

        notes += prepare_images(task.images, target)
    return notes


def _images_of(scan: Path, images: Path | None, size: tuple[int, int] | None) -> ImageTask | None:
    if images is None:
        return None
    from pointseg.datasets.scannet.images import ImageTask, find_images

    found = find_images(scan, images)
    return None if found is None else ImageTask(found, size)


def _prepare_points(task: ScanTask, target: Path) -> list[str]:
    stem = task.folder / task.folder.name
    mesh = Path(f"{stem}{MESH}")
    if not mesh.is_file():
        raise DatasetError(f"{mesh}: is missing; download the scan again")
    scene = read_cloud(mesh)
    if "color" not in scene:
        raise DatasetError(f"{mesh}: its vertices have no colour")
    coord = scene.coord if not scene.origin.any() else scene.coord + scene.origin
    arrays: dict[str, NDArray[Any]] = {
        "coord": coord.astype(np.float32),
        "color": np.rint(scene["color"]).astype(np.uint8),
        "normal": vertex_normals(scene.coord, read_faces(mesh)),
    }
    notes: list[str] = []
    if task.classes is not None:
        labels, notes = read_labels(
            Path(f"{stem}{SEGMENTS}"), Path(f"{stem}{OBJECTS}"), task.classes, len(scene)
        )
        arrays.update(labels)
    save_scene(target, arrays)
    return notes


def vertex_normals(
    coord: NDArray[np.floating[Any]], faces: NDArray[np.integer[Any]]
) -> NDArray[np.float32]:
    """Normals of a mesh's vertices: of the faces around each, weighted by their areas.

    Args:
        coord: (N, 3) vertices.
        faces: (F, 3) vertices of each triangle, counter-clockwise from outside.

    Returns:
        (N, 3) of unit length; zero for vertices without faces, or whose faces cancel out.
    """
    xyz = coord.astype(np.float64)
    a, b, c = (xyz[faces[:, corner]] for corner in range(3))
    by_area = np.cross(b - a, c - a)  # twice the area long
    normal = np.zeros_like(xyz)
    for axis in range(3):
        weights = np.repeat(by_area[:, axis], 3)
        normal[:, axis] = np.bincount(faces.ravel(), weights, minlength=len(xyz))
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return np.divide(normal, length, out=np.zeros_like(normal), where=length > 0).astype(np.float32)


def read_label_table(path: Path) -> dict[str, tuple[int, int]]:
    """Which class, of the 20 and of the 200, each name of ``scannetv2-labels.combined.tsv`` is; -1: none.

    Raises:
        DatasetError: the table is missing, or has not the columns that it must have.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: is missing; it comes with ScanNet's download")
    of_nyu40 = {raw: index for index, raw in enumerate(NYU40_IDS)}
    of_200 = {raw: index for index, raw in enumerate(classes200.RAW_IDS)}
    classes = {}
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream, delimiter="\t")
            for row in rows:
                nyu40, own = int(row["nyu40id"] or 0), int(row["id"] or 0)
                classes[row["raw_category"]] = (
                    of_nyu40.get(nyu40, IGNORE),
                    of_200.get(own, IGNORE),
                )
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DatasetError(
            f"{path}: must have the columns raw_category, id and nyu40id, with numbers in the last two: {error!r}"
        ) from error
    if not classes:
        raise DatasetError(f"{path}: holds no classes")
    return classes


def read_labels(
    segments: Path, objects: Path, classes: Classes, count: int
) -> tuple[dict[str, NDArray[np.int16]], list[str]]:
    """Labels of a mesh's vertices: each vertex is in a segment, and annotators named groups of these.

    Args:
        segments: ``.segs.json``, the segment of each vertex.
        objects: ``.aggregation.json``, the segments of each object and its name.
        classes: what the names mean.
        count: vertices of the mesh.

    Returns:
        ``LABELS``, each (count,); and notes on names that are not in the table, whose vertices
        are ignored.

    Raises:
        DatasetError: a file is missing or damaged, or of another mesh.
    """
    of_vertex = _segment_indices(segments)
    if len(of_vertex) != count:
        raise DatasetError(
            f"{segments}: has segments for {len(of_vertex)} vertices, the mesh has {count}"
        )
    known, place = np.unique(of_vertex, return_inverse=True)
    # One row for each segment; of groups that share one, the last counts, as the benchmark has it.
    of_segment = np.full((len(known), 3), IGNORE, np.int16)
    unknown: Counter[str] = Counter()
    strays = 0
    for number, name, members in _groups(objects):
        if name not in classes:
            unknown[name] += 1
        rows = np.searchsorted(known, members)
        rows = np.minimum(rows, max(len(known) - 1, 0))
        there = known[rows] == members if len(known) else np.zeros(len(members), bool)
        strays += int((~there).sum())
        of_segment[rows[there]] = (*classes.get(name, (IGNORE, IGNORE)), number)
    labels = {key: of_segment[place, column] for column, key in enumerate(LABELS)}
    notes = []
    if unknown:
        names = ", ".join(f"{name!r} ({times})" for name, times in unknown.most_common(10))
        notes.append(
            f"{unknown.total()} objects have names that the label table lacks, they are ignored: {names}"
        )
    if strays:
        notes.append(f"{strays} segments of objects have no vertices")
    return labels, notes


def _segment_indices(path: Path) -> NDArray[np.int64]:
    found = _read_json(path, "segIndices")
    try:
        values = np.array(found, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{path}: 'segIndices' must be whole numbers: {error}") from error
    if values.ndim != 1:
        raise DatasetError(f"{path}: 'segIndices' must be a list of numbers")
    return values


def _groups(path: Path) -> list[tuple[int, str, NDArray[np.int64]]]:
    """Number, name and segments of each object."""
    groups = []
    try:
        for group in _read_json(path, "segGroups"):
            members = np.array(group["segments"], dtype=np.int64).reshape(-1)
            number = int(group["id"])
            if not 0 <= number <= np.iinfo(np.int16).max:
                raise ValueError(f"object number {number}")
            groups.append((number, str(group["label"]), members))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{path}: each of 'segGroups' must have id, label and segments: {error!r}"
        ) from error
    return groups


def _read_json(path: Path, key: str) -> list[Any]:
    if not path.is_file():
        raise DatasetError(f"{path}: is missing, so that the scan has no labels; download it again")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[key]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: is damaged, it must be JSON with '{key}': {error}") from error
    if not isinstance(found, list):
        raise DatasetError(f"{path}: '{key}' must be a list")
    return found
