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
from pointseg.files.columns import checked_segment, class_field, paint, scene_of
from pointseg.files.errors import CloudFileError
from pointseg.scene import FIELDS, Scene

COORD_NAMES = ("coord", "coords", "xyz", "points", "pos")
MUST_FIT = ("color", "normal", "strength", "segment", "segment20", "segment200", "instance")
"""Arrays that belong to the points whatever their length: another length is a mistake."""
COLOR_NAMES = ("color", "colors", "colour", "rgb")
TABLE_NAMES = {
    3: "xyz",
    4: ("x", "y", "z", "intensity"),
    6: ("x", "y", "z", "red", "green", "blue"),
}
"""What the columns of a single array mean, by their number."""


def is_npy_folder(path: Path) -> bool:
    """Whether a folder holds one cloud."""
    return (path / "coord.npy").is_file()


def read_npy_folder(path: Path, *, strength_max: float | None = None) -> Scene:
    """A cloud from a folder of ``.npy`` files.

    Raises:
        CloudFileError: no ``coord.npy``, a damaged file, arrays of different lengths.
    """
    if not is_npy_folder(path):
        raise CloudFileError(path, "is a folder without coord.npy, thus not a cloud")
    arrays = {file.stem: read_array(file) for file in sorted(path.glob("*.npy"))}
    return scene_of(path, _per_point(path, arrays), name=path.name, strength_max=strength_max)


def write_npy_folder(path: Path, scene: Scene) -> None:
    """A scene as a folder of ``.npy`` files; positions are float64 if it has an origin."""
    for name, values in _arrays_of(scene).items():
        _save(path / f"{name}.npy", values)


def label_npy_folder(
    source: Path,
    target: Path,
    segment: NDArray[Any],
    *,
    colors: NDArray[np.uint8] | None = None,
    field: str | None = None,
) -> None:
    """Copy a folder of ``.npy`` files with the classes as ``class.npy`` among them.

    Args:
        source: the folder that was read.
        target: the folder to be.
        segment: (N,) classes.
        colors: (K, 3) colours of the classes; given, they replace ``color.npy``.
        field: name of the array; see ``class_field``.

    Raises:
        CloudFileError: as ``read_npy_folder``; ``segment`` does not fit.
    """
    if not is_npy_folder(source):
        raise CloudFileError(source, "is a folder without coord.npy, thus not a cloud")
    arrays = {file.stem: read_array(file) for file in sorted(source.glob("*.npy"))}
    _per_point(source, arrays)
    new = _labelled(source, arrays, segment, colors, field)
    for name, values in new.items():
        if values is not arrays.get(name):
            _save(target / f"{name}.npy", values)
        elif target != source:
            with new_file(target / f"{name}.npy") as part:
                shutil.copyfile(source / f"{name}.npy", part)


def read_npz(path: Path, *, strength_max: float | None = None) -> Scene:
    """A cloud from the arrays of an ``.npz`` file.

    Raises:
        CloudFileError: not such a file, damaged, no positions, arrays of different lengths.
    """
    return scene_of(
        path, _per_point(path, _load_npz(path)), name=path.stem, strength_max=strength_max
    )


def write_npz(path: Path, scene: Scene) -> None:
    """A scene as compressed ``.npz``."""
    with new_file(path) as part, open(part, "wb") as stream:
        _save_npz(stream, _arrays_of(scene), zipfile.ZIP_DEFLATED)


def label_npz(
    source: Path,
    target: Path,
    segment: NDArray[Any],
    *,
    colors: NDArray[np.uint8] | None = None,
    field: str | None = None,
) -> None:
    """Copy an ``.npz`` file with an array of classes more; arguments as for ``label_npy_folder``.

    Raises:
        CloudFileError: as ``read_npz``; ``segment`` does not fit.
    """
    arrays = _load_npz(source)
    _per_point(source, arrays)
    new = _labelled(source, arrays, segment, colors, field)
    with zipfile.ZipFile(source) as archive:
        method = max(entry.compress_type for entry in archive.infolist())
    with new_file(target) as part, open(part, "wb") as stream:
        _save_npz(stream, new, method)


def read_npy(path: Path, *, strength_max: float | None = None) -> Scene:
    """A cloud from one array: structured, or with columns x, y, z, then intensity or colour.

    Raises:
        CloudFileError: damaged, or of another shape.
    """
    return scene_of(
        path, _table_columns(path, read_array(path)), name=path.stem, strength_max=strength_max
    )


def write_npy(path: Path, scene: Scene) -> None:
    """A scene as one structured array; positions are float64 if it has an origin."""
    arrays = _arrays_of(scene)
    coord = arrays.pop("coord")
    columns = {**dict(zip("xyz", coord.T, strict=True)), **arrays}
    rows = np.empty(len(scene), [(k, v.dtype, v.shape[1:]) for k, v in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    _save(path, rows)


def label_npy(
    source: Path,
    target: Path,
    segment: NDArray[Any],
    *,
    colors: NDArray[np.uint8] | None = None,
    field: str | None = None,
) -> None:
    """Copy a single array with the classes as a further field, or as last column of a plain array.

    Args:
        source: the file that was read.
        target: the file to be.
        segment: (N,) classes.
        colors: (K, 3) colours of the classes; given, they replace those of the points. Only structured
            arrays have a place for new ones.
        field: name of the field, of structured arrays only; see ``class_field``.

    Raises:
        CloudFileError: as ``read_npy``; ``segment`` does not fit; no place for colours or names.
    """
    array = read_array(source)
    columns = _table_columns(source, array)
    segment = checked_segment(source, segment, len(array))
    if array.dtype.names is None:
        plain = "red" not in columns and colors is not None
        if plain or field is not None:
            raise CloudFileError(
                source,
                "a plain array has no place for new colours or names; leave them out, or use npz",
            )
        table = array
        if colors is not None:
            table = array.copy()
            table[:, 3:6] = _color_like(paint(segment, colors), array[:, 3:6])
        kind = np.result_type(array.dtype, np.int32 if array.dtype.kind in "iu" else array.dtype)
        _save(target, np.concatenate([table.astype(kind), segment[:, None].astype(kind)], axis=1))
        return
    new: dict[str, NDArray[Any]] = {name: array[name] for name in array.dtype.names}
    new[class_field(source, new, field)] = segment
    if colors is not None:
        new |= _painted(new, paint(segment, colors))
    rows = np.empty(len(array), [(k, v.dtype, v.shape[1:]) for k, v in new.items()])
    for name, values in new.items():
        rows[name] = values
    _save(target, rows)


def read_array(path: Path) -> NDArray[Any]:
    """One ``.npy`` file; its size is checked before memory is asked for.

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
            raise ValueError(f"{dtype} of shape {shape} is no array of numbers")
        count = int(np.prod(shape, dtype=object))
        needed, left = count * dtype.itemsize, size - stream.tell()
        if needed > left:
            raise ValueError(f"it is cut off: {needed} bytes announced, {left} are left")
        data = stream.read(needed)
        values = np.frombuffer(data, dtype, count).reshape(shape, order="F" if fortran else "C")
    except (OSError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # numpy, tokenize, zlib: a damaged header makes them raise many things
        raise CloudFileError(path, f"is no readable numpy file{where}: {error}") from error
    return values.astype(dtype.newbyteorder("="))


def _load_npz(path: Path) -> dict[str, NDArray[Any]]:
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".npy"):
                    with archive.open(entry) as stream:
                        name = entry.filename.removesuffix(".npy")
                        arrays[name] = _read(path, stream, entry.file_size, name)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, CloudFileError):
            raise
        raise CloudFileError(path, f"is no readable npz file: {error}") from error
    return arrays


def _per_point(path: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Those arrays that have a row per point."""
    by_name = {name.lower(): values for name, values in arrays.items()}
    coord = next((by_name[name] for name in COORD_NAMES if name in by_name), None)
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
    arrays: dict[str, NDArray[Any]] = {"coord": scene.coord}
    if scene.origin.any():
        arrays["coord"] = scene.coord + scene.origin
    for name, values in scene.fields.items():
        if name in FIELDS or name not in COORD_NAMES:
            arrays[name] = values
    return arrays


def _labelled(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    segment: NDArray[Any],
    colors: NDArray[np.uint8] | None,
    field: str | None,
) -> dict[str, NDArray[Any]]:
    coord = next(arrays[name] for name in arrays if name.lower() in COORD_NAMES)
    segment = checked_segment(path, segment, len(coord))
    new = dict(arrays)
    new[class_field(path, arrays, field)] = segment
    if colors is not None:
        new |= _painted(arrays, paint(segment, colors))
    return new


def _table_columns(path: Path, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    if array.dtype.names is not None and array.ndim == 1:
        return {name: np.ascontiguousarray(array[name]) for name in array.dtype.names}
    if array.dtype.names is not None or array.ndim != 2 or array.shape[1] not in TABLE_NAMES:
        raise CloudFileError(
            path,
            f"must hold a structured array, or one of 3 columns (x, y, z), 4 (and intensity) or 6 "
            f"(and red, green, blue), got {array.shape} {array.dtype}; use npz to name more",
        )
    return {
        name: np.ascontiguousarray(array[:, i])
        for i, name in enumerate(TABLE_NAMES[array.shape[1]])
    }


def _painted(
    arrays: Mapping[str, NDArray[Any]], painted: NDArray[np.uint8]
) -> dict[str, NDArray[Any]]:
    """Arrays of colour by name: those that are replaced, or a new one."""
    by_name = {name.lower(): name for name in arrays}
    if {"red", "green", "blue"} <= set(by_name):
        names = [by_name[key] for key in ("red", "green", "blue")]
        new = _color_like(painted, np.stack([arrays[name] for name in names], axis=1))
        return dict(zip(names, new.T, strict=True))
    name = next((by_name[key] for key in COLOR_NAMES if key in by_name), "color")
    return {name: _color_like(painted, arrays[name]) if name in arrays else painted}


def _color_like(color: NDArray[np.uint8], old: NDArray[Any]) -> NDArray[Any]:
    """In the type and range of the colours that are replaced."""
    if old.dtype.kind == "f":
        largest = old.max(initial=0)
        return (color / (255 if largest <= 1 else 1)).astype(old.dtype)
    return (color * np.uint16(257 if old.max(initial=0) > 255 else 1)).astype(old.dtype)


def _save_npz(stream: IO[bytes], arrays: Mapping[str, NDArray[Any]], method: int) -> None:
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(values), allow_pickle=False)


def _save(path: Path, values: NDArray[Any]) -> None:
    with new_file(path) as part, open(part, "wb") as stream:
        np.save(stream, values, allow_pickle=False)
