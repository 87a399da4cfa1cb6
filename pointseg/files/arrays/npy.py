"""A cloud as one .npy file: a structured array, or a plain one of three, four or six columns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.files.arrays.array_file import ArrayFile, ArrayHeader
from pointseg.files.arrays.point_arrays import arrays_of, labelled, new_fields, save
from pointseg.files.labelling.labels import Labels
from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.pieces import PIECE, Pieces, ranges
from pointseg.files.table.rows import as_rows
from pointseg.scene import Scene

TABLE_NAMES = {
    3: "xyz",
    4: ("x", "y", "z", "intensity"),
    6: ("x", "y", "z", "red", "green", "blue"),
}
"""What the columns of a single array mean, by their number."""


def read_npy(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of one array: structured, or with columns x, y, z, then intensity or colour."""
    return _table_columns(path, read_array(path))


def npy_pieces(path: Path) -> Pieces:
    """One array in pieces, as ``read_npy``."""
    file = ArrayFile(path)
    _table_columns(path, file.rows(0, 0))

    def read(size: int) -> Iterator[dict[str, NDArray[Any]]]:
        for start, stop in ranges(len(file), size):
            yield _table_columns(path, file.rows(start, stop))

    return Pieces(len(file), file.header.dtype.itemsize * math.prod(file.shape[1:]), read)


def write_npy(path: Path, scene: Scene) -> None:
    """A scene as one structured array; positions are float64 if it has an origin."""
    arrays = arrays_of(scene)
    coord = arrays.pop("coord")
    save(path, as_rows({**dict(zip("xyz", coord.T, strict=True)), **arrays}))


def label_npy(source: Path, target: Path, labels: Labels) -> None:
    """Copy a single array with the classes as a further field.

    A plain array becomes a structured one: the number of its columns would no longer say what they mean.
    """
    file = ArrayFile(source)

    def read(start: int, stop: int) -> dict[str, NDArray[Any]]:
        return _table_columns(source, file.rows(start, stop))

    labels, fields = labels.checked(source, len(file)), new_fields(source, labels, read(0, 0))
    with new_file(target) as part, open(part, "wb") as stream:
        for columns, new in labelled(read, fields, labels, PIECE):
            columns.update(new)
            rows = as_rows(columns)
            if stream.tell() == 0:
                ArrayHeader((len(file), *rows.shape[1:]), False, rows.dtype).write(stream)
            stream.write(rows.tobytes())


def read_array(path: Path) -> NDArray[Any]:
    """One ``.npy`` file; its size is checked before memory is allocated.

    Raises:
        CloudFileError: not such a file, Python objects in it, cut off.
    """
    file = ArrayFile(path)
    return file.rows(0, len(file))


def _table_columns(path: Path, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    if array.dtype.names is not None and array.ndim == 1:
        return {name: np.ascontiguousarray(array[name]) for name in array.dtype.names}
    if array.dtype.names is not None or array.ndim != 2 or array.shape[1] not in TABLE_NAMES:
        raise CloudFileError(
            path,
            f"must hold a structured array, or one of 3 columns (x, y, z), 4 (and intensity) or 6 "
            f"(and red, green, blue), got {array.shape} {array.dtype}; use npz to name more",
        )
    names = TABLE_NAMES[array.shape[1]]
    return {name: np.ascontiguousarray(array[:, i]) for i, name in enumerate(names)}
