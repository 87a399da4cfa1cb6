"""Clouds as numpy arrays: a folder of .npy files (Pointcept's layout), one .npz, or a single .npy.

A folder holds ``coord.npy`` and, as far as they are known, color, normal, strength, segment and
instance, each with a row per point. Further arrays with a row per point are fields of their own.
"""

from __future__ import annotations

import math
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.safe_zip import check_archive
from pointseg.files.array_file import ArrayFile, ArrayHeader
from pointseg.files.columns import COLOR, COLOR_ARRAYS, POSITION_ARRAYS
from pointseg.files.errors import CloudFileError
from pointseg.files.labels import Labels
from pointseg.files.pieces import PIECE, Pieces, ranges
from pointseg.files.rows import as_rows
from pointseg.scene import FIELDS, Scene

MUST_FIT = ("color", "normal", "strength", "segment", "segment20", "segment200", "instance")
"""Arrays that belong to the points whatever their length: another length is a mistake."""
MOST_DEFLATED = 1040
"""Bytes that deflate makes of one at most: arrays of zeros come near it."""
TABLE_NAMES = {
    3: "xyz",
    4: ("x", "y", "z", "intensity"),
    6: ("x", "y", "z", "red", "green", "blue"),
}
"""What the columns of a single array mean, by their number."""
Array = TypeVar("Array", NDArray[Any], ArrayFile)


def is_npy_folder(path: Path) -> bool:
    """Whether a folder holds one cloud."""
    return (path / "coord.npy").is_file()


def read_npy_folder(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a folder of ``.npy`` files that have a row per point."""
    files = _per_point(path, _open_folder(path))
    return {name: file.rows(0, len(file)) for name, file in files.items()}


def npy_folder_pieces(path: Path) -> Pieces:
    """A folder of ``.npy`` files in pieces."""
    files = _per_point(path, _open_folder(path))
    count = len(next(iter(files.values())))
    widths = (file.header.dtype.itemsize * math.prod(file.shape[1:]) for file in files.values())

    def read(size: int) -> Iterator[dict[str, NDArray[Any]]]:
        for start, stop in ranges(count, size):
            yield {name: file.rows(start, stop) for name, file in files.items()}

    return Pieces(count, sum(widths), read)


def write_npy_folder(path: Path, scene: Scene) -> None:
    """A scene as a folder of ``.npy`` files; positions are float64 if it has an origin."""
    for name, values in _arrays_of(scene).items():
        _save(path / f"{name}.npy", values)


def label_npy_folder(source: Path, target: Path, labels: Labels) -> None:
    """Copy a folder of ``.npy`` files with the classes as ``class.npy`` among them."""
    files = _open_folder(source)
    of_points = _per_point(source, files)
    count = len(next(iter(of_points.values())))
    colors = _color_names(of_points)
    labels, fields = labels.checked(source, count), _new_fields(source, labels, files)

    def read(start: int, stop: int) -> dict[str, NDArray[Any]]:
        return {name: of_points[name].rows(start, stop) for name in colors}

    with ExitStack() as opened:
        streams: dict[str, IO[bytes]] = {}
        for _, new in _labelled(read, fields, labels, PIECE):
            for name, values in new.items():
                if name not in streams:
                    part = opened.enter_context(new_file(target / f"{name}.npy"))
                    streams[name] = opened.enter_context(open(part, "wb"))
                    shape = (count, *values.shape[1:])
                    ArrayHeader(shape, False, values.dtype).write(streams[name])
                streams[name].write(values.tobytes())
    for name, file in files.items():
        if name not in streams and target != source:
            with new_file(target / f"{name}.npy") as part:
                shutil.copyfile(file.path, part)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file that have a row per point."""
    return _per_point(path, _load_npz(path))


def write_npz(path: Path, scene: Scene) -> None:
    """A scene as compressed ``.npz``."""
    _save_npz(path, _arrays_of(scene), zipfile.ZIP_DEFLATED)


def label_npz(source: Path, target: Path, labels: Labels) -> None:
    """Copy an ``.npz`` file with an array of classes more."""
    arrays = _load_npz(source)
    of_points = _per_point(source, arrays)
    count = len(next(iter(of_points.values())))
    fields = _new_fields(source, labels, arrays)
    labels = labels.checked(source, count)
    ((_, new),) = _labelled(lambda start, stop: of_points, fields, labels, max(count, 1))
    with zipfile.ZipFile(source) as archive:
        method = max(entry.compress_type for entry in archive.infolist())
    _save_npz(target, {**arrays, **new}, method)


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
    arrays = _arrays_of(scene)
    coord = arrays.pop("coord")
    _save(path, as_rows({**dict(zip("xyz", coord.T, strict=True)), **arrays}))


def check_npy(source: Path, *, named: bool = False, colored: bool = False) -> None:
    """Refuse fields and colours for a plain array that has no place for them.

    Raises:
        CloudFileError: such an array.
    """
    file = ArrayFile(source)
    columns = _table_columns(source, file.rows(0, 0))
    if file.header.dtype.names is None and (named or (colored and "red" not in columns)):
        raise CloudFileError(
            source, "a plain array cannot hold new colours or fields; omit them, or use npz"
        )


def label_npy(source: Path, target: Path, labels: Labels) -> None:
    """Copy a single array with the classes as a further field, or as last column of a plain array."""
    file = ArrayFile(source)

    def read(start: int, stop: int) -> dict[str, NDArray[Any]]:
        return _table_columns(source, file.rows(start, stop))

    names, old = read(0, 0), file.header.dtype
    is_named = labels.field is not None or bool(labels.added)
    check_npy(source, colored=labels.colors is not None, named=is_named)
    kind = np.result_type(old, np.int32) if old.kind in "iu" else old.newbyteorder("=")
    labels, fields = labels.checked(source, len(file)), _new_fields(source, labels, names)
    with new_file(target) as part, open(part, "wb") as stream:
        for columns, new in _labelled(read, fields, labels, PIECE):
            columns.update(new)
            if old.names is None:
                rows = np.stack([values.astype(kind) for values in columns.values()], axis=1)
            else:
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


def _open_folder(path: Path) -> dict[str, ArrayFile]:
    if not is_npy_folder(path):
        raise CloudFileError(
            path, "is a folder without coord.npy, which every folder of a cloud has"
        )
    return {file.stem: ArrayFile(file) for file in sorted(path.glob("*.npy"))}


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


def _per_point(path: Path, arrays: Mapping[str, Array]) -> dict[str, Array]:
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
    read: Callable[[int, int], dict[str, NDArray[Any]]],
    fields: Sequence[str],
    labels: Labels,
    size: int,
) -> Iterator[tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]]:
    """What is there and what is new, in pieces of ``size`` points: classes, and all else that labels have.

    Args:
        read: gives the rows from one to another of what is there.
        fields: as ``_new_fields`` gives them.
        labels: of all points.
        size: points of a piece.
    """
    largest = 0.0
    if labels.colors is not None:
        for start, part in labels.pieces(size):
            old = read(start, start + len(part))
            found = [float(old[name].max(initial=0)) for name in _color_names(old)]
            largest = max([largest, *found])
    for start, segment in labels.pieces(size):
        old = read(start, start + len(segment))
        more = zip(
            labels.added_values(start, start + len(segment)), labels.added.values(), strict=True
        )
        columns = [segment, *(values.astype(kind) for values, kind in more)]
        new: dict[str, NDArray[Any]] = dict(zip(fields, columns, strict=True))
        if labels.colors is not None:
            new.update(_painted(old, labels.paint(segment), largest))
        yield old, new


def _new_fields(source: Path, labels: Labels, existing: Collection[str]) -> list[str]:
    """The names of the classes, and of what else labels add."""
    return [labels.field_in(source, existing), *labels.added_names(existing)]


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


def _color_names(names: Collection[str]) -> list[str]:
    """Which of these are the colours: three, one, or none."""
    by_name = {name.lower(): name for name in names}
    if by_name.keys() >= set(COLOR[0]):
        return [by_name[key] for key in COLOR[0]]
    return [by_name[key] for key in COLOR_ARRAYS if key in by_name][:1]


def _painted(
    old: Mapping[str, NDArray[Any]], color: NDArray[np.uint8], largest: float
) -> dict[str, NDArray[Any]]:
    """Arrays of colour by name: those that are replaced, in their type and range, or a new one."""
    names = _color_names(old)
    if not names:
        return {"color": color}
    kind = np.result_type(*(old[name].dtype for name in names))
    if kind.kind == "f":
        values = (color / (255 if largest <= 1 else 1)).astype(kind)
    else:
        values = (color * np.uint16(257 if largest > 255 else 1)).astype(kind)
    if len(names) == 1:
        return {names[0]: values}
    return dict(zip(names, values.T, strict=True))


def _save_npz(path: Path, arrays: Mapping[str, NDArray[Any]], method: int) -> None:
    with new_file(path) as part, zipfile.ZipFile(part, "w", method) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(values), allow_pickle=False)


def _save(path: Path, values: NDArray[Any]) -> None:
    with new_file(path) as part, open(part, "wb") as stream:
        np.save(stream, values, allow_pickle=False)
