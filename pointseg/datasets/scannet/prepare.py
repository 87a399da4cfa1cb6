"""Prepares ScanNet: the cleaned mesh as arrays, with normals and labels of 20 and 200 classes; images.

Positions stay as they are in the mesh, the world of the camera poses in the ``.sens`` stream: the axis
alignment is not applied.
"""

from __future__ import annotations

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
    missing_scenes,
    prepare_scenes,
)
from pointseg.datasets.scannet.dataset import IMAGE_SIZE, NAME, OFFICIAL_COUNTS, split_of
from pointseg.datasets.scannet.labels import LABELS, Classes, read_label_table, read_labels
from pointseg.datasets.scene_arrays import save_scene
from pointseg.files import read_cloud, read_faces

if TYPE_CHECKING:
    from pointseg.datasets.scannet.images import ImageTask

LABEL_TABLE = "scannetv2-labels.combined.tsv"
FOLDERS = ("scans", "scans_test")
MESH, SEGMENTS, OBJECTS = "_vh_clean_2.ply", "_vh_clean_2.0.010000.segs.json", ".aggregation.json"
POINTS = ("coord", "color", "normal")


@dataclass(frozen=True)
class ScanTask:
    """One scan to prepare."""

    folder: Path
    """Folder of its official files."""
    classes: Classes | None
    """Training indices by the annotators' names; None: the scan has no labels."""
    images: ImageTask | None = None
    """How its images are prepared; None: they are not."""

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of its arrays."""
        return POINTS if self.classes is None else POINTS + LABELS


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
        images: the folder of the ``.sens`` streams or of extracted frames, which may be ``source``; every
            tenth frame of a stream is exported, about 25 GB. None: images are not prepared.
        image_size: height and width of exported images; None: as they are.
        workers: number of processes.
        report: called after each scene.

    Raises:
        DatasetError: ``source`` is not ScanNet; see also ``prepare_scenes``.
    """
    scans, others = _find_scans(source)
    if not scans:
        raise DatasetError(
            f"{source}: must be the folder of ScanNet's download with scans/scene0000_00 and so on, has none"
        )
    classes = read_label_table(source / LABEL_TABLE)
    jobs: list[Job[ScanTask]] = []
    without: list[str] = []
    for split, scan in ((s, f) for s in OFFICIAL_COUNTS for f in scans if split_of(f.name) == s):
        shown = _images_of(scan, images, image_size)
        if images is not None and shown is None:
            without.append(scan.name)
        task = ScanTask(scan, None if split == "test" else classes, shown)
        jobs.append(Job(split, scan.name, task, task.arrays, cameras=shown is not None))
    if images is not None and len(without) == len(jobs):
        raise DatasetError(
            f"{images}: has neither .sens streams nor extracted frames (color, pose, intrinsic) of any scan; "
            f"give the folder with those of {jobs[0].scene}"
        )
    index = Index(
        dataset=NAME,
        splits={s: tuple(job.scene for job in jobs if job.split == s) for s in OFFICIAL_COUNTS},
        fields=("color", "normal"),
        images=stored_images(images, out),
    )
    notes = missing_scenes(index.splits, OFFICIAL_COUNTS, "scans are there")
    if without:
        notes.append(f"{len(without)} scans have no images: {first_names(without)}")
    if others:
        notes.append(
            f"left out {len(others)} folders that are not in the official lists, or twice: {first_names(others)}"
        )
    return prepare_scenes(
        prepare_scan, jobs, out, index, workers=workers, report=report, notes=notes
    )


def _find_scans(source: Path) -> tuple[list[Path], list[str]]:
    """Folders of the official scans, by name; and which folders are none, or a scan's second one."""
    scans: dict[str, Path] = {}
    others: list[str] = []
    for parent in FOLDERS:
        for folder in sorted(p for p in source.glob(f"{parent}/*") if p.is_dir()):
            if split_of(folder.name) is None or folder.name in scans:
                others.append(f"{parent}/{folder.name}")
            else:
                scans[folder.name] = folder
    return [scans[name] for name in sorted(scans)], others


def prepare_scan(task: ScanTask, target: Path) -> list[str]:
    """Write the missing arrays and images of one scan; returns notes.

    Raises:
        DatasetError, CloudFileError: a file is missing, damaged, or does not fit the others.
    """

    def save_cameras() -> list[str]:
        from pointseg.datasets.scannet.images import prepare_images

        assert task.images is not None
        return prepare_images(task.images, target)

    cameras = None if task.images is None else save_cameras
    return complete_scene(target, task.arrays, lambda: _prepare_points(task, target), cameras)


def _images_of(scan: Path, images: Path | None, size: tuple[int, int] | None) -> ImageTask | None:
    if images is None:
        return None
    from pointseg.datasets.scannet.images import ImageTask, find_images

    found = find_images(scan, images)
    return None if found is None else ImageTask(found, size, scan / f"{scan.name}.txt")


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
    """Vertex normals of a mesh: sums of the normals of adjacent faces, weighted by their areas.

    Args:
        coord: (N, 3) vertices.
        faces: (F, 3) vertices of each triangle, counter-clockwise from outside.

    Returns:
        (N, 3) of unit length; zero where there are no faces, or they cancel out.
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
