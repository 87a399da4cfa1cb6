"""The arrays of a prepared scene: ``coord.npy``, ``color.npy`` and so on in a folder (Pointcept's layout)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.array_checksum import array_checksum
from dinomed3d.runtime.files.atomic_files import new_folder
from pointseg.datasets.errors import DatasetError, EmptySceneError
from pointseg.files.arrays.array_file import ArrayFile
from pointseg.files.table.errors import CloudFileError

CHECKSUMS = "checksums.json"
"""File in the folder of a scene with the checksum of each array."""
AGAIN = "prepare the dataset again: complete scenes are kept"


def save_scene(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays of a scene; its folder appears when all are written, and replaces an older one.

    Raises:
        WriteError: the system refuses to write.
    """
    _remove_temporary(folder)
    with new_folder(folder) as part:
        for name, values in arrays.items():
            np.save(part / f"{name}.npy", np.ascontiguousarray(values), allow_pickle=False)
        sums = {name: array_checksum(values) for name, values in arrays.items()}
        (part / CHECKSUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")


def _remove_temporary(folder: Path) -> None:
    """Remove the temporary folders of killed processes for this scene."""
    for part in folder.parent.glob(f".*.part.{folder.name}"):
        shutil.rmtree(part, ignore_errors=True)


def is_saved(folder: Path, names: Iterable[str]) -> bool:
    """Whether all arrays of a scene exist, are as long as their headers say, and hold what was written."""
    try:
        for name in names:
            file = ArrayFile(folder / f"{name}.npy")
            _compare(file, file.rows(0, len(file)))
    except (OSError, UserError):
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
    values = file.rows(0, len(file))
    _compare(file, values)
    return values


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
    try:
        file = ArrayFile(path)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: is missing; {AGAIN}") from error
    except CloudFileError as error:
        raise DatasetError(f"{error}; {AGAIN}") from error
    kind = file.header.dtype
    numbers = kind.kind in ("iu" if columns is None else "fiu")
    shape = (len(file) if count is None else count,) + (() if columns is None else (columns,))
    if file.shape != shape or not numbers:
        wanted = "whole numbers" if columns is None else "numbers"
        raise DatasetError(
            f"{path}: must hold {shape} {wanted}, a row for each point, got {file.shape} {kind}; {AGAIN}"
        )
    return file


_compared: set[tuple[str, int]] = set()
"""Files, and when they were changed, that this process has compared with their checksums."""


def _compare(file: ArrayFile, values: NDArray[Any]) -> None:
    """Compare an array with the checksum that was saved with it, once in a process; older scenes have none.

    Raises:
        DatasetError: it differs.
    """
    path = file.path
    state = str(path), path.stat().st_mtime_ns
    if state in _compared:
        return
    stated = _checksums(path.parent).get(path.stem)
    if stated is not None and stated != array_checksum(values):
        raise DatasetError(
            f"{path}: is damaged: its checksum is not the one of what was written; {AGAIN}. If you changed it "
            f"yourself, delete {CHECKSUMS} in its folder"
        )
    _compared.add(state)


def _checksums(folder: Path) -> Mapping[str, str]:
    try:
        found = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
