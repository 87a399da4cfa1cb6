"""A cloud as a folder of .npy files, Pointcept's layout."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_files
from pointseg.files.arrays.array_file import ArrayFile, ArrayHeader
from pointseg.files.arrays.point_arrays import (
    arrays_of,
    color_names,
    labelled,
    new_fields,
    per_point,
    save,
)
from pointseg.files.labelling.labels import Labels
from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.pieces import PIECE, Pieces, ranges
from pointseg.scene import Scene


def is_npy_folder(path: Path) -> bool:
    """Whether a folder holds one cloud."""
    return (path / "coord.npy").is_file()


def read_npy_folder(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a folder of ``.npy`` files that have a row per point."""
    files = per_point(path, _open_folder(path))
    return {name: file.rows(0, len(file)) for name, file in files.items()}


def npy_folder_pieces(path: Path) -> Pieces:
    """A folder of ``.npy`` files in pieces."""
    files = per_point(path, _open_folder(path))
    count = len(next(iter(files.values())))
    widths = (file.header.dtype.itemsize * math.prod(file.shape[1:]) for file in files.values())

    def read(size: int) -> Iterator[dict[str, NDArray[Any]]]:
        for start, stop in ranges(count, size):
            yield {name: file.rows(start, stop) for name, file in files.items()}

    return Pieces(count, sum(widths), read)


def write_npy_folder(path: Path, scene: Scene) -> None:
    """A scene as a folder of ``.npy`` files; positions are float64 if it has an origin."""
    for name, values in arrays_of(scene).items():
        save(path / f"{name}.npy", values)


def label_npy_folder(source: Path, target: Path, labels: Labels) -> None:
    """Copy a folder of ``.npy`` files with the classes as ``class.npy`` among them.

    Arrays of an earlier result, which readers would take for this one's, are removed.
    """
    files = _open_folder(source)
    of_points = per_point(source, files)
    count = len(next(iter(of_points.values())))
    colors = color_names(of_points)
    labels, fields = labels.checked(source, count), new_fields(source, labels, files)

    def read(start: int, stop: int) -> dict[str, NDArray[Any]]:
        return {name: of_points[name].rows(start, stop) for name in colors}

    with new_files(target) as folder:
        with ExitStack() as opened:
            streams: dict[str, IO[bytes]] = {}
            for _, new in labelled(read, fields, labels, PIECE):
                for name, values in new.items():
                    if name not in streams:
                        streams[name] = opened.enter_context(open(folder / f"{name}.npy", "wb"))
                        shape = (count, *values.shape[1:])
                        ArrayHeader(shape, False, values.dtype).write(streams[name])
                    streams[name].write(values.tobytes())
        for name, file in files.items():
            if name not in streams and target != source:
                shutil.copyfile(file.path, folder / f"{name}.npy")
    for path in target.glob("*.npy"):
        if path.stem not in files.keys() | streams.keys():
            path.unlink()


def _open_folder(path: Path) -> dict[str, ArrayFile]:
    if not is_npy_folder(path):
        raise CloudFileError(
            path, "is a folder without coord.npy, which every folder of a cloud has"
        )
    return {file.stem: ArrayFile(file) for file in sorted(path.glob("*.npy"))}
