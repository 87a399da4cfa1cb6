"""LiDAR scans as bare tables: KITTI's ``.bin`` of four float32, nuScenes' ``.pcd.bin`` of five, or named columns."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.files.columns.given_names import HINT, choices
from pointseg.files.columns.names import SPARE_CLASS_FIELD, names_labels
from pointseg.files.labelling.labels import Labels
from pointseg.files.scans.bare_table import TYPES, TableForm, weigh
from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.pieces import Pieces, ranges
from pointseg.scene import IGNORE, Scene

KITTI = ("x", "y", "z", "remission")
NUSCENES = ("x", "y", "z", "intensity", "ring")
EXAMPLE = (*NUSCENES, "time", *(f"column{number}" for number in range(7, 17)))
NUSCENES_SUFFIX = ".pcd.bin"
STRENGTH_MAX = {".bin": 1.0, NUSCENES_SUFFIX: 255.0}
"""The largest intensity of each type of scan."""
UNLABELLED = 0xFFFF


def read_bin(path: Path, columns: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """The columns of a scan, with the labels of the ``.label`` file next to it, if there is one.

    A label holds the class in its lower and the object in its upper 16 bits, as in SemanticKITTI.

    Args:
        path: the file.
        columns: names of its columns, if they are others than those of its type.

    Raises:
        CloudFileError: its values are those of another number of columns, or of another type of number.
    """
    return _whole(bin_pieces(path, columns))


def read_scan(path: Path) -> dict[str, NDArray[Any]]:
    """As ``read_bin``, of a scan that is known to have the columns of its type."""
    return _whole(_pieces(path, _names(path), "<f4"))


def read_label(path: Path) -> NDArray[np.int32]:
    """(N,) classes of a ``.label`` file, -1 for points without one.

    Raises:
        CloudFileError: it is cut off.
    """
    size = path.stat().st_size
    if size % 4:
        raise CloudFileError(path, f"has {size} bytes, no whole number of uint32: it is cut off")
    return _classes(np.fromfile(path, "<u4"))


def bin_pieces(path: Path, columns: Sequence[str] | None = None) -> Pieces:
    """A scan, with its labels as ``read_bin``, in pieces."""
    return _pieces(path, *_form(path, columns))


def _whole(pieces: Pieces) -> dict[str, NDArray[Any]]:
    return dict(next(iter(pieces.read(max(pieces.count, 1)))))


def _classes(raw: NDArray[np.uint32]) -> NDArray[np.int32]:
    """The lower 16 bits of labels; the upper are of objects."""
    segment = (raw & UNLABELLED).astype(np.int32)
    return np.where(segment == UNLABELLED, np.int32(IGNORE), segment)


def _form(path: Path, columns: Sequence[str] | None) -> tuple[Sequence[str], str]:
    """Names of the columns and type of the values: those given, or else those of the file's ending, if they fit."""
    usual, found, size = _names(path), weigh(path), path.stat().st_size
    given = [] if columns is None else choices(columns)
    for names, kind in [*((names, found.kind) for names in given), (usual, "<f4")]:
        form = TableForm(len(names), kind)
        if size % form.row_bytes == 0 and found.fits(form):
            return names, kind
    names, best = given[0] if given else usual, found.best
    expected = f"{len(names)} {'float32 ' if columns is None else ''}({', '.join(names)})"
    what = f"the names given {HINT} are {expected}" if given else f"its ending says {expected}"
    if best is not None:
        raise CloudFileError(
            path,
            f"seems to hold {size // best.row_bytes} points of {best}; {what}: name its columns {HINT}, such as "
            f"{','.join(EXAMPLE[: best.width])}",
        )
    if size % (4 * len(names)) == 0:
        raise CloudFileError(
            path, f"seems to hold {TYPES[found.kind]}; {what}: name its columns {HINT}"
        )
    other = "; nuScenes' scans of 5 columns must end in .pcd.bin" if size % 20 == 0 else ""
    raise CloudFileError(
        path,
        f"has {size} bytes, no whole number of points of {len(names)} values ({', '.join(names)}): it is cut off or "
        f"of another kind{other}",
    )


def _pieces(path: Path, names: Sequence[str], kind: str) -> Pieces:
    """A table of such columns in pieces, with the labels next to it."""
    row = len(names) * np.dtype(kind).itemsize
    size = path.stat().st_size
    if size % row:
        raise CloudFileError(
            path,
            f"has {size} bytes, no whole number of points of {len(names)} {TYPES[kind]} values: it is cut off",
        )
    count, labels = size // row, _label_path(path)
    is_labelled = labels.is_file()
    if is_labelled and labels.stat().st_size != 4 * count:
        raise CloudFileError(
            labels,
            f"must have {4 * count} bytes, one uint32 for each of the {count} points of "
            f"{path.name}, it has {labels.stat().st_size}",
        )

    field = SPARE_CLASS_FIELD if any(map(names_labels, names)) else "segment"  # which counts first

    def read(size: int) -> Iterator[dict[str, NDArray[Any]]]:
        for start, stop in ranges(count, size):
            numbers = (stop - start) * len(names)
            table = np.fromfile(path, kind, numbers, offset=start * row).reshape(-1, len(names))
            table = table.astype(np.dtype(kind).newbyteorder("="), copy=False)
            columns = {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(names)}
            if is_labelled:
                raw = np.fromfile(labels, "<u4", stop - start, offset=4 * start)
                columns[field] = _classes(raw)
                columns["instance"] = (raw >> 16).astype(np.int32)
            yield columns

    return Pieces(count, row, read)


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


def check_bin(source: Path, labels: Labels) -> None:
    """Refuse colours and fields, for which scans have no place.

    Raises:
        CloudFileError: labels with any.
    """
    if labels.colors is not None:
        raise CloudFileError(source, "a .bin scan cannot hold colours; omit them")
    if labels.added:
        raise CloudFileError(
            source,
            f"a .bin scan has no place for {', '.join(labels.added)}; omit --confidence, --height and "
            "--write-classification, or save it as .ply",
        )
    if labels.field is not None:
        raise CloudFileError(source, "a .bin scan cannot hold a named field; omit its name")


def label_bin(
    source: Path, target: Path, labels: Labels, columns: Sequence[str] | None = None
) -> None:
    """Copy a scan and write the classes into a ``.label`` file next to the copy."""
    check_bin(source, labels)
    names, kind = _form(source, columns)
    row = len(names) * np.dtype(kind).itemsize
    labels = labels.checked(source, source.stat().st_size // row)
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
