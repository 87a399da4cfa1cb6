"""Clouds as numpy arrays: a folder of .npy files (Pointcept's layout), one .npz, or a single .npy.

A folder holds ``coord.npy`` and, as far as they are known, color, normal, strength, segment and
instance, each with a row per point. Further arrays with a row per point are fields of their own.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from pointseg.files.columns import COLOR, COLOR_ARRAYS, POSITION_ARRAYS
from pointseg.files.errors import CloudFileError
from pointseg.files.labels import Labels
from pointseg.files.rows import as_rows
from pointseg.scene import FIELDS, Scene

MUST_FIT = ("color", "normal", "strength", "segment", "segment20", "segment200", "instance")
"""Arrays that belong to the points whatever their length: another length is a mistake."""
TABLE_NAMES = {
    3: "xyz",
    4: ("x", "y", "z", "intensity"),
    6: ("x", "y", "z", "red", "green", "blue"),
}
"""What the columns of a single array mean, by their number."""


def is_npy_folder(path: Path) -> bool:
    """Whether a folder holds one cloud."""
    return (path / "coord.npy").is_file()


def read_npy_folder(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a folder of ``.npy`` files that have a row per point."""
    return _per_point(path, _load_folder(path))


def write_npy_folder(path: Path, scene: Scene) -> None:
    """A scene as a folder of ``.npy`` files; positions are float64 if it has an origin."""
    for name, values in _arrays_of(scene).items():
        _save(path / f"{name}.npy", values)


def label_npy_folder(source: Path, target: Path, labels: Labels) -> None:
    """Copy a folder of ``.npy`` files with the classes as ``class.npy`` among them."""
    arrays = _load_folder(source)
    count = len(next(iter(_per_point(source, arrays).values())))
    for name, values in _labelled(source, arrays, count, labels).items():
        if values is not arrays.get(name):
            _save(target / f"{name}.npy", values)
        elif target != source:
            with new_file(target / f"{name}.npy") as part:
                shutil.copyfile(source / f"{name}.npy", part)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file that have a row per point."""
    return _per_point(path, _load_npz(path))


def write_npz(path: Path, scene: Scene) -> None:
    """A scene as compressed ``.npz``."""
    _save_npz(path, _arrays_of(scene), zipfile.ZIP_DEFLATED)


def label_npz(source: Path, target: Path, labels: Labels) -> None:
    """Copy an ``.npz`` file with an array of classes more."""
    arrays = _load_npz(source)
    new = _labelled(source, arrays, len(next(iter(_per_point(source, arrays).values()))), labels)
    with zipfile.ZipFile(source) as archive:
        method = max(entry.compress_type for entry in archive.infolist())
    _save_npz(target, new, method)


def read_npy(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of one array: structured, or with columns x, y, z, then intensity or colour."""
    return _table_columns(path, read_array(path))


def write_npy(path: Path, scene: Scene) -> None:
    """A scene as one structured array; positions are float64 if it has an origin."""
    arrays = _arrays_of(scene)
    coord = arrays.pop("coord")
    _save(path, as_rows({**dict(zip("xyz", coord.T, strict=True)), **arrays}))


def label_npy(source: Path, target: Path, labels: Labels) -> None:
    """Copy a single array with the classes as a further field, or as last column of a plain array."""
    array = read_array(source)
    columns = _table_columns(source, array)
    is_plain = array.dtype.names is None
    no_place = labels.field is not None or (labels.colors is not None and "red" not in columns)
    if is_plain and no_place:
        raise CloudFileError(
            source, "a plain array cannot hold new colours or names; omit them, or use npz"
        )
    new = _labelled(source, columns, len(array), labels)
    if not is_plain:
        _save(target, as_rows(new))
        return
    kind = np.result_type(array.dtype, np.int32 if array.dtype.kind in "iu" else array.dtype)
    _save(target, np.stack([values.astype(kind) for values in new.values()], axis=1))


def read_array(path: Path) -> NDArray[Any]:
    """One ``.npy`` file; its size is checked before memory is allocated.

    Raises:
        CloudFileError: not such a file, Python objects in it, cut off.
    """
    with open(path, "rb") as stream:
        return _read(path, stream, path.stat().st_size)


def _read(path: Path, stream: IO[bytes], size: int, inner: str = "") -> NDArray[Any]:
    where = f" in '{inner}'" if inner else ""
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"version {version} of the format")
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which are not read: they could run any code")
        if dtype.kind not in "fiubV" or not shape:
            raise ValueError(f"it holds {dtype} of shape {shape}, not an array of numbers")
        count = int(np.prod(shape, dtype=object))
        needed, left = count * dtype.itemsize, size - stream.tell()
        if needed > left:
            raise ValueError(f"it is cut off: {needed} bytes announced, {left} are left")
        data = stream.read(needed)
        values = np.frombuffer(data, dtype, count).reshape(shape, order="F" if fortran else "C")
    except (OSError, MemoryError):
        raise
    except Exception as error:  # damaged headers make numpy, tokenize and zlib raise many things
        raise CloudFileError(path, f"is not a readable numpy file{where}: {error}") from error
    return values.astype(dtype.newbyteorder("="))


def _load_folder(path: Path) -> dict[str, NDArray[Any]]:
    if not is_npy_folder(path):
        raise CloudFileError(
            path, "is a folder without coord.npy, which every folder of a cloud has"
        )
    return {file.stem: read_array(file) for file in sorted(path.glob("*.npy"))}


def _load_npz(path: Path) -> dict[str, NDArray[Any]]:
    arrays = {}
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


def _per_point(path: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Those arrays that have a row per point."""
    by_name = {name.lower(): values for name, values in arrays.items()}
    coord = next((by_name[name] for name in POSITION_ARRAYS if name in by_name), None)
    if coord is None or coord.ndim != 2 or coord.shape[1] != 3:
        has = ", ".join(f"{name} {values.shape}" for name, values in arrays.items()) or "none"
        raise CloudFileError(path, f"must hold an array 'coord' of shape (N, 3); it holds: {has}")
    for name, values in arrays.items():
        if name.lower() in MUST_FIT and len(values) != len(coord):
            raise CloudFileError(
                path, f"'{name}' has {len(values)} rows, 'coord' {len(coord)}; they must be equal"
            )
    return {name: values for name, values in arrays.items() if len(values) == len(coord)}


def _arrays_of(scene: Scene) -> dict[str, NDArray[Any]]:
    coord = scene.coord + scene.origin if scene.origin.any() else scene.coord
    fields = {
        name: values
        for name, values in scene.fields.items()
        if name in FIELDS or name not in POSITION_ARRAYS
    }
    return {"coord": coord, **fields}


def _labelled(
    path: Path, arrays: Mapping[str, NDArray[Any]], count: int, labels: Labels
) -> dict[str, NDArray[Any]]:
    """All arrays, with the classes of ``count`` points among them."""
    labels = labels.checked(path, count)
    return {**arrays, labels.field_in(path, arrays): labels.segment, **_painted(arrays, labels)}


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


def _painted(arrays: Mapping[str, NDArray[Any]], labels: Labels) -> dict[str, NDArray[Any]]:
    """Arrays of colour by name, if labels have colours: those that are replaced, or a new one."""
    if labels.colors is None:
        return {}
    painted, by_name = labels.paint(), {name.lower(): name for name in arrays}
    if by_name.keys() >= set(COLOR[0]):
        names = [by_name[key] for key in COLOR[0]]
        new = _in_range_of(np.stack([arrays[name] for name in names], axis=1), painted)
        return dict(zip(names, new.T, strict=True))
    name = next((by_name[key] for key in COLOR_ARRAYS if key in by_name), "color")
    return {name: _in_range_of(arrays[name], painted) if name in arrays else painted}


def _in_range_of(old: NDArray[Any], color: NDArray[np.uint8]) -> NDArray[Any]:
    """Colours in the type and range of those that they replace."""
    if old.dtype.kind == "f":
        return (color / (255 if old.max(initial=0) <= 1 else 1)).astype(old.dtype)
    return (color * np.uint16(257 if old.max(initial=0) > 255 else 1)).astype(old.dtype)


def _save_npz(path: Path, arrays: Mapping[str, NDArray[Any]], method: int) -> None:
    with new_file(path) as part, zipfile.ZipFile(part, "w", method) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(values), allow_pickle=False)


def _save(path: Path, values: NDArray[Any]) -> None:
    with new_file(path) as part, open(part, "wb") as stream:
        np.save(stream, values, allow_pickle=False)
