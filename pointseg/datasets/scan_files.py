"""Files of laser scans that are read in place: points and labels with a fixed number of bytes each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pointseg.datasets.errors import DatasetError, EmptySceneError
from pointseg.files import known_intensity_max
from pointseg.files.columns.fields import fields_in
from pointseg.files.columns.values import Range, to_strength
from pointseg.files.scans.kitti import read_scan
from pointseg.scene import Scene


def load_scan(path: Path, name: str) -> Scene:
    """The points of a scan with ``strength``, in the coordinate system of the scanner.

    Raises:
        DatasetError: the file is missing.
        CloudFileError: it is damaged.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: is missing")
    found = fields_in(path, read_scan(path))
    assert found.strength is not None  # such scans have it
    strength = to_strength(found.strength, Range(0.0, known_intensity_max(path) or 1.0))
    return Scene(coord=found.xyz, fields={"strength": strength}, name=name)


def load_raw_labels(path: Path, count: int, kind: DTypeLike) -> NDArray[Any]:
    """(count,) the label file of a scan.

    Args:
        path: the file.
        count: number of points of the scan.
        kind: type of one label.

    Raises:
        DatasetError: the file is missing or of another length.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: is missing; download and unpack the labels")
    size, needed = path.stat().st_size, count * np.dtype(kind).itemsize
    if size != needed:
        raise DatasetError(f"{path}: must have {needed} bytes for {count} points, got {size}")
    return np.fromfile(path, kind)


def scan_problem(points: Path, labels: Path | None, *, point_bytes: int, label_bytes: int) -> str:
    """What is wrong with the files of a scan, judged by their sizes; "" if nothing is.

    Args:
        points: file of the points.
        labels: file of the labels; None: it needs none.
        point_bytes: bytes of one point.
        label_bytes: bytes of one label.
    """
    if not points.is_file():
        return f"{points}: is missing; unpack all parts of the download"
    size = points.stat().st_size
    if size == 0 or size % point_bytes:
        return f"{points}: is cut off: its {size} bytes are no multiple of {point_bytes} per point"
    if labels is None:
        return ""
    if not labels.is_file():
        return f"{labels}: is missing; download and unpack the labels"
    needed, found = size // point_bytes * label_bytes, labels.stat().st_size
    if found != needed:
        return f"{labels}: must have {needed} bytes for {size // point_bytes} points, got {found}"
    return ""


def check_scan(points: Path, labels: Path | None, *, point_bytes: int, label_bytes: int) -> None:
    """Check the files of a scan by their sizes; arguments as of ``scan_problem``.

    Raises:
        EmptySceneError: it has no points.
        DatasetError: a file is missing, cut off, or does not fit the other.
    """
    if points.is_file() and points.stat().st_size == 0:
        raise EmptySceneError(f"{points}: has no points")
    if problem := scan_problem(points, labels, point_bytes=point_bytes, label_bytes=label_bytes):
        raise DatasetError(problem)
