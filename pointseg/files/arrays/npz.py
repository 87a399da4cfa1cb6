"""A cloud as one .npz file, an archive of arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import new_file
from dinomed3d.runtime.files.safe_zip import check_archive
from pointseg.files.arrays.array_file import ArrayHeader
from pointseg.files.arrays.point_arrays import arrays_of, labelled, new_fields, per_point
from pointseg.files.labelling.labels import Labels
from pointseg.files.table.errors import CloudFileError
from pointseg.scene import Scene

MOST_DEFLATED = 1040
"""Bytes that deflate makes of one at most: arrays of zeros come near it."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file that have a row per point."""
    return per_point(path, _load_npz(path))


def write_npz(path: Path, scene: Scene) -> None:
    """A scene as compressed ``.npz``."""
    _save_npz(path, arrays_of(scene), zipfile.ZIP_DEFLATED)


def label_npz(source: Path, target: Path, labels: Labels) -> None:
    """Copy an ``.npz`` file with an array of classes more."""
    arrays = _load_npz(source)
    of_points = per_point(source, arrays)
    count = len(next(iter(of_points.values())))
    fields = new_fields(source, labels, arrays)
    labels = labels.checked(source, count)
    ((_, new),) = labelled(lambda start, stop: of_points, fields, labels, max(count, 1))
    with zipfile.ZipFile(source) as archive:
        method = max(entry.compress_type for entry in archive.infolist())
    _save_npz(target, {**arrays, **new}, method)


def _read(path: Path, stream: IO[bytes], size: int, inner: str) -> NDArray[Any]:
    try:
        header = ArrayHeader.read(stream, size)
        data = stream.read(header.count * header.dtype.itemsize)
        values = np.frombuffer(data, header.dtype, header.count)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # damaged headers make numpy, tokenize and zlib raise many things
        raise CloudFileError(path, f"is not a readable numpy file in '{inner}': {error}") from error
    values = values.reshape(header.shape, order="F" if header.fortran else "C")
    return values.astype(header.dtype.newbyteorder("="))


def _load_npz(path: Path) -> dict[str, NDArray[Any]]:
    arrays = {}
    try:
        check_archive(path, max_ratio=MOST_DEFLATED)
    except UserError as error:
        raise CloudFileError(path, f"is not a readable npz file: {error}") from error
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".npy"):
                    with archive.open(entry) as stream:
                        name = entry.filename.removesuffix(".npy")
                        arrays[name] = _read(path, stream, entry.file_size, name)
    except CloudFileError:
        raise
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise CloudFileError(path, f"is not a readable npz file: {error}") from error
    return arrays


def _save_npz(path: Path, arrays: Mapping[str, NDArray[Any]], method: int) -> None:
    with new_file(path) as part, zipfile.ZipFile(part, "w", method) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(values), allow_pickle=False)
