"""LiDAR scans as bare float32: KITTI's ``.bin`` of four columns, nuScenes' ``.pcd.bin`` of five."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from pointseg.files.columns import checked_segment, scene_of
from pointseg.files.errors import CloudFileError
from pointseg.scene import IGNORE, Scene

KITTI = ("x", "y", "z", "remission")
NUSCENES = ("x", "y", "z", "intensity", "ring")
NUSCENES_INTENSITY = 255
NUSCENES_SUFFIX = ".pcd.bin"
UNLABELLED = 0xFFFF


def read_bin(path: Path, *, strength_max: float | None = None) -> Scene:
    """All points of a scan, with the labels of the ``.label`` file beside it, if there is one.

    ``remission`` (0 to 1) or ``intensity`` (0 to 255) also become ``strength``. A label holds the
    class in its lower and the object in its upper 16 bits, as SemanticKITTI has them.

    Raises:
        CloudFileError: the size is no whole number of points; labels for another number of points.
    """
    names = _names(path)
    size = path.stat().st_size
    if size % (4 * len(names)):
        other = "; nuScenes' scans of 5 columns must end in .pcd.bin" if size % 20 == 0 else ""
        raise CloudFileError(
            path,
            f"has {size} bytes, no whole number of points of {len(names)} float32 values "
            f"({', '.join(names)}): it is cut off or of another kind{other}",
        )
    table = np.fromfile(path, "<f4").reshape(-1, len(names)).astype(np.float32, copy=False)
    columns = {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(names)}
    scene = scene_of(path, columns, name=_stem(path), strength_max=strength_max)
    scale = (1 if names is KITTI else NUSCENES_INTENSITY) if strength_max is None else strength_max
    strength = np.nan_to_num(table[:, 3:4], nan=0.0, posinf=0.0, neginf=0.0) / np.float32(scale)
    scene = scene.with_fields(strength=np.clip(strength, 0, 1))
    labels = label_path(path)
    if not labels.is_file():
        return scene
    if labels.stat().st_size != 4 * len(scene):
        raise CloudFileError(
            labels,
            f"must have {4 * len(scene)} bytes, one uint32 for each of the {len(scene)} points of "
            f"{path.name}, it has {labels.stat().st_size}",
        )
    raw = np.fromfile(labels, "<u4")
    segment = (raw & UNLABELLED).astype(np.int32)
    segment[segment == UNLABELLED] = IGNORE
    return scene.with_fields(segment=segment, instance=(raw >> 16).astype(np.int32))


def write_bin(path: Path, scene: Scene) -> None:
    """A scene as a scan, and a ``.label`` file if it has ``segment``; other fields have no place there.

    Raises:
        CloudFileError: an origin, which float32 cannot hold to the millimetre.
    """
    if scene.origin.any():
        raise CloudFileError(
            path, f"float32 cannot hold positions around {scene.origin} m; write ply, las or npy"
        )
    names = _names(path)
    table = np.zeros((len(scene), len(names)), "<f4")
    table[:, :3] = scene.coord
    if "strength" in scene:
        table[:, 3:4] = scene["strength"] * (1 if names is KITTI else NUSCENES_INTENSITY)
    if names is NUSCENES and "ring" in scene:
        table[:, 4] = scene["ring"]
    with new_file(path) as part:
        part.write_bytes(table.tobytes())
    if "segment" in scene:
        _write_labels(path, scene["segment"], scene.fields.get("instance"))


def label_bin(
    source: Path,
    target: Path,
    segment: NDArray[Any],
    *,
    colors: NDArray[np.uint8] | None = None,
    field: str | None = None,
) -> None:
    """Copy a scan and write the classes into a ``.label`` file beside the copy.

    Args:
        source: the file that was read.
        target: the file to be.
        segment: (N,) classes.
        colors: must be None: scans have no place for colours.
        field: must be None: nor for names.

    Raises:
        CloudFileError: as ``read_bin``; ``segment`` does not fit; colours; the scan's own labels
            would be overwritten.
    """
    if colors is not None or field is not None:
        raise CloudFileError(
            source, "a .bin scan has no place for colours or named fields; leave them out"
        )
    count = source.stat().st_size // (4 * len(_names(source)))
    segment = checked_segment(source, segment, count)
    if target.exists() and source.samefile(target) and label_path(source).exists():
        raise CloudFileError(
            label_path(source), "exists; write to another folder to keep these labels"
        )
    with new_file(target) as part:
        shutil.copyfile(source, part)
    _write_labels(target, segment, None)


def label_path(path: Path) -> Path:
    """The file beside a scan that holds its labels."""
    return path.with_name(_stem(path) + ".label")


def _names(path: Path) -> tuple[str, ...]:
    return NUSCENES if path.name.lower().endswith(NUSCENES_SUFFIX) else KITTI


def _stem(path: Path) -> str:
    return path.name[: -len(NUSCENES_SUFFIX)] if _names(path) is NUSCENES else path.stem


def _write_labels(path: Path, segment: NDArray[Any], instance: NDArray[Any] | None) -> None:
    if len(segment) and not IGNORE <= segment.min() <= segment.max() < UNLABELLED:
        raise CloudFileError(label_path(path), f"classes must be -1 to {UNLABELLED - 1}")
    labels = np.where(segment < 0, UNLABELLED, segment).astype("<u4")
    if instance is not None:
        labels |= (np.clip(instance, 0, UNLABELLED).astype(np.uint32)) << np.uint32(16)
    with new_file(label_path(path)) as part:
        part.write_bytes(labels.astype("<u4").tobytes())
