"""LiDAR scans as bare float32: KITTI's ``.bin`` of four columns, nuScenes' ``.pcd.bin`` of five."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from pointseg.files.errors import CloudFileError
from pointseg.files.labels import Labels
from pointseg.files.pieces import Pieces, ranges
from pointseg.scene import IGNORE, Scene

KITTI = ("x", "y", "z", "remission")
NUSCENES = ("x", "y", "z", "intensity", "ring")
NUSCENES_SUFFIX = ".pcd.bin"
STRENGTH_MAX = {".bin": 1.0, NUSCENES_SUFFIX: 255.0}
"""The largest intensity of each type of scan."""
UNLABELLED = 0xFFFF


def read_bin(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of a scan, with the labels of the ``.label`` file next to it, if there is one.

    A label holds the class in its lower and the object in its upper 16 bits, as in SemanticKITTI.
    """
    pieces = bin_pieces(path)
    return dict(next(pieces.read(max(pieces.count, 1))))


def bin_pieces(path: Path) -> Pieces:
    """A scan, with its labels as ``read_bin``, in pieces."""
    names = _names(path)
    size = path.stat().st_size
    if size % (4 * len(names)):
        other = "; nuScenes' scans of 5 columns must end in .pcd.bin" if size % 20 == 0 else ""
        raise CloudFileError(
            path,
            f"has {size} bytes, no whole number of points of {len(names)} float32 values "
            f"({', '.join(names)}): it is cut off or of another kind{other}",
        )
    count, labels = size // (4 * len(names)), _label_path(path)
    is_labelled = labels.is_file()
    if is_labelled and labels.stat().st_size != 4 * count:
        raise CloudFileError(
            labels,
            f"must have {4 * count} bytes, one uint32 for each of the {count} points of "
            f"{path.name}, it has {labels.stat().st_size}",
        )

    def read(size: int) -> Iterator[dict[str, NDArray[Any]]]:
        for start, stop in ranges(count, size):
            numbers, at = (stop - start) * len(names), start * 4 * len(names)
            table = np.fromfile(path, "<f4", numbers, offset=at).reshape(-1, len(names))
            table = table.astype(np.float32, copy=False)
            columns = {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(names)}
            if is_labelled:
                raw = np.fromfile(labels, "<u4", stop - start, offset=4 * start)
                segment = (raw & UNLABELLED).astype(np.int32)
                columns["segment"] = np.where(segment == UNLABELLED, IGNORE, segment)
                columns["instance"] = (raw >> 16).astype(np.int32)
            yield columns

    return Pieces(count, 4 * len(names), read)


def write_bin(path: Path, scene: Scene) -> None:
    """A scene as a scan, and a ``.label`` file if it has ``segment``; other fields have no place there."""
    if scene.origin.any():
        raise CloudFileError(
            path, f"float32 cannot hold positions around {scene.origin} m; write ply, las or npy"
        )
    names = _names(path)
    table = np.zeros((len(scene), len(names)), "<f4")
    table[:, :3] = scene.coord
    if "strength" in scene:
        table[:, 3:4] = scene["strength"] * (1 if names is KITTI else STRENGTH_MAX[NUSCENES_SUFFIX])
    if names is NUSCENES and "ring" in scene:
        table[:, 4] = scene["ring"]
    with new_file(path) as part:
        part.write_bytes(table.tobytes())
    if "segment" in scene:
        labels = Labels(scene["segment"]).checked(path, len(scene))
        _write_labels(path, labels, scene.fields.get("instance"))


def label_bin(source: Path, target: Path, labels: Labels) -> None:
    """Copy a scan and write the classes into a ``.label`` file next to the copy."""
    if labels.colors is not None or labels.field is not None:
        raise CloudFileError(source, "a .bin scan cannot hold colours or named fields; omit them")
    labels = labels.checked(source, source.stat().st_size // (4 * len(_names(source))))
    if target.exists() and source.samefile(target) and _label_path(source).exists():
        raise CloudFileError(
            _label_path(source), "exists; write to another folder to keep these labels"
        )
    with new_file(target) as part:
        shutil.copyfile(source, part)
    _write_labels(target, labels, None)


def _names(path: Path) -> tuple[str, ...]:
    return NUSCENES if path.name.lower().endswith(NUSCENES_SUFFIX) else KITTI


def _label_path(path: Path) -> Path:
    suffix = NUSCENES_SUFFIX if _names(path) is NUSCENES else path.suffix
    return path.with_name(path.name[: -len(suffix)] + ".label")


def _write_labels(path: Path, labels: Labels, instance: NDArray[Any] | None) -> None:
    low, high = labels.limits
    if not IGNORE <= low <= high < UNLABELLED:
        raise CloudFileError(_label_path(path), f"classes must be -1 to {UNLABELLED - 1}")
    with new_file(_label_path(path)) as part, open(part, "wb") as stream:
        for start, segment in labels.pieces():
            raw = np.where(segment < 0, UNLABELLED, segment).astype("<u4")
            if instance is not None:
                objects = instance[start : start + len(segment)]
                raw |= np.clip(objects, 0, UNLABELLED).astype(np.uint32) << np.uint32(16)
            stream.write(raw.astype("<u4").tobytes())
