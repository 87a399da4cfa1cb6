"""The arrays of a prepared scene: ``coord.npy``, ``color.npy`` and so on in a folder (Pointcept's layout)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_folder
from pointseg.datasets.errors import DatasetError, EmptySceneError
from pointseg.files.array_file import ArrayFile
from pointseg.files.errors import CloudFileError


def save_scene(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays of a scene; its folder appears when all are written, and replaces an older one.

    Raises:
        WriteError: the system refuses to write.
    """
    _remove_temporary(folder)
    with new_folder(folder) as part:
        for name, values in arrays.items():
            np.save(part / f"{name}.npy", np.ascontiguousarray(values), allow_pickle=False)


def _remove_temporary(folder: Path) -> None:
    """Remove the temporary folders of killed processes for this scene."""
    for part in folder.parent.glob(f".*.part.{folder.name}"):
        shutil.rmtree(part, ignore_errors=True)


def is_saved(folder: Path, names: Iterable[str]) -> bool:
    """Whether all arrays of a scene exist and are as long as their headers say."""
    try:
        for name in names:
            with open(folder / f"{name}.npy", "rb") as stream:
                np.lib.format.read_magic(stream)
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                size = stream.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
                if os.fstat(stream.fileno()).st_size != size:
                    return False
    except (OSError, ValueError, EOFError):
        return False
    return True


def load_array(folder: Path, name: str, count: int | None, columns: int | None) -> NDArray[Any]:
    """Load one array of a scene.

    Args:
        folder: of the scene.
        name: of the array.
        count: rows that it must have; None: any.
        columns: columns of floating point or whole numbers; None: a vector of whole numbers.

    Raises:
        DatasetError: it is missing, damaged, or of another shape.
    """
    file = _open(folder, name, count, columns)
    return file.rows(0, len(file))


def check_arrays(folder: Path, columns: Mapping[str, int | None]) -> None:
    """Check all arrays of a scene by their headers and sizes.

    Args:
        folder: of the scene.
        columns: columns of each array, as for ``load_array``; the first one says how many points there are.

    Raises:
        EmptySceneError: there are no points.
        DatasetError: one is missing, cut off, or of another shape.
    """
    count: int | None = None
    for name, width in columns.items():
        count = len(_open(folder, name, count, width))
    if count == 0:
        raise EmptySceneError(f"{folder}: has no points")


def _open(folder: Path, name: str, count: int | None, columns: int | None) -> ArrayFile:
    """An array whose header fits; see ``load_array``."""
    path = folder / f"{name}.npy"
    again = "prepare the dataset again: complete scenes are kept"
    try:
        file = ArrayFile(path)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: is missing; {again}") from error
    except CloudFileError as error:
        raise DatasetError(f"{error}; {again}") from error
    kind = file.header.dtype
    numbers = kind.kind in ("iu" if columns is None else "fiu")
    shape = (len(file) if count is None else count,) + (() if columns is None else (columns,))
    if file.shape != shape or not numbers:
        wanted = "whole numbers" if columns is None else "numbers"
        raise DatasetError(
            f"{path}: must hold {shape} {wanted}, a row for each point, got {file.shape} {kind}; {again}"
        )
    return file
