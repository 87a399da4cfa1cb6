"""PLY files: vertices with any properties, as text or binary; what is not a vertex is carried along."""

from __future__ import annotations

import shutil
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from pointseg.files.columns import (
    checked_segment,
    class_field,
    columns_of,
    paint,
    scene_of,
    storable,
)
from pointseg.files.errors import CloudFileError
from pointseg.files.ply_header import NAMES, Header, Property, extended, read_header
from pointseg.files.ply_lists import require_bytes, seek_element
from pointseg.files.rows import as_texts, copy_rows, parse_rows
from pointseg.scene import Scene

COLORS = ("red", "green", "blue")


def read_ply(path: Path, *, strength_max: float | None = None) -> Scene:
    """The vertices of a PLY file.

    Raises:
        CloudFileError: not a PLY file, a malformed header, fewer data than the header says.
    """
    rows = _read_vertices(read_header(path))
    names = rows.dtype.names or ()
    columns = {name: rows[name].astype(rows[name].dtype.newbyteorder("=")) for name in names}
    return scene_of(path, columns, name=path.stem, strength_max=strength_max)


def write_ply(path: Path, scene: Scene) -> None:
    """A scene as a little-endian PLY file; positions are doubles if it has an origin."""
    columns = {key.replace(" ", "_"): storable(v) for key, v in columns_of(scene).items()}
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(scene)}"]
    lines += [f"property {NAMES[_code(v.dtype)]} {key}" for key, v in columns.items()]
    rows = np.empty(len(scene), [(key, "<" + _code(v.dtype)) for key, v in columns.items()])
    for key, values in columns.items():
        rows[key] = values
    with new_file(path) as part, open(part, "wb") as stream:
        stream.write("\n".join([*lines, "end_header", ""]).encode())
        stream.write(rows.tobytes())


def label_ply(
    source: Path,
    target: Path,
    segment: NDArray[Any],
    *,
    colors: NDArray[np.uint8] | None = None,
    field: str | None = None,
) -> None:
    """Copy a PLY file with a class for each vertex; all else stays as it is.

    Args:
        source: the file that was read.
        target: the file to be.
        segment: (N,) classes.
        colors: (K, 3) colours of the classes; given, they replace those of the points.
        field: property for the classes; see ``class_field``.

    Raises:
        CloudFileError: as ``read_ply``; ``segment`` does not fit.
    """
    header = read_header(source)
    vertex = header.vertex
    segment = checked_segment(source, segment, vertex.count)
    name = class_field(source, [p.name for p in vertex.properties], field)
    small = len(segment) == 0 or (segment.min() >= 0 and segment.max() <= 255)
    added = [Property(name, "u1" if small else "i4")]
    values: dict[str, NDArray[Any]] = {name: segment}
    if colors is not None:
        kinds = {p.name: p.kind for p in vertex.properties}
        painted = paint(segment, colors)
        for column, color in enumerate(COLORS):
            kind = kinds.get(color, "u1")
            added.append(Property(color, kind))
            values[color] = color_as(painted[:, column], kind)
    new = extended(header, added)
    with new_file(target) as part, open(source, "rb") as old, open(part, "wb") as stream:
        seek_element(header, old, vertex)
        start = old.tell()
        old.seek(header.size)
        stream.write(b"".join(new.lines) + old.read(start - header.size))
        copy = _copy_binary if header.order else _copy_text
        copy(header, new, values, old, stream)
        shutil.copyfileobj(old, stream)


def color_as(color: NDArray[np.uint8], kind: str) -> NDArray[Any]:
    """Colours 0 to 255 in the range that a column of this type has."""
    if kind[0] == "f":
        return (color / 255).astype(kind)
    return color * np.uint16(257) if kind == "u2" else color.astype(kind)


def _read_vertices(header: Header) -> NDArray[Any]:
    """(N,) structured, in the file's byte order."""
    vertex = header.vertex
    if vertex.has_lists:
        raise CloudFileError(header.path, "lists in element 'vertex' cannot be read; remove them")
    with open(header.path, "rb") as stream:
        seek_element(header, stream, vertex)
        if header.order:
            require_bytes(header, stream, vertex)
            return np.fromfile(stream, vertex.dtype(header.order), vertex.count)
        width = len(vertex.properties)
        table = parse_rows(header.path, stream, vertex.count, columns=width, what="vertex")
    rows = np.empty(vertex.count, vertex.dtype("="))
    for column, found in enumerate(vertex.properties):
        values = table[:, column]
        if found.kind[0] != "f" and not _fits(values, found.kind):
            raise CloudFileError(
                header.path,
                f"property '{found.name}' holds what is no {NAMES[found.kind]}, as its header says it is",
            )
        with np.errstate(over="ignore"):  # beyond float32: infinite
            rows[found.name] = values
    return rows


def _fits(values: NDArray[np.float64], kind: str) -> bool:
    limits = np.iinfo(kind)
    inside = (values >= limits.min) & (values <= limits.max)  # NaN compares False
    return bool(inside.all() and (np.floor(values) == values).all())


def _copy_binary(
    header: Header,
    new: Header,
    values: dict[str, NDArray[Any]],
    old: BufferedReader,
    stream: BufferedWriter,
) -> None:
    vertex = header.vertex
    require_bytes(header, old, vertex)
    dtype = vertex.dtype(header.order)
    before = np.frombuffer(old.read(vertex.count * dtype.itemsize), dtype)
    rows = np.empty(vertex.count, new.vertex.dtype(header.order))
    for name in rows.dtype.names or ():
        rows[name] = values[name] if name in values else before[name]
    stream.write(rows.tobytes())


def _copy_text(
    header: Header,
    new: Header,
    values: dict[str, NDArray[Any]],
    old: BufferedReader,
    stream: BufferedWriter,
) -> None:
    known = [p.name for p in header.vertex.properties]
    columns = {name: as_texts(found) for name, found in values.items()}
    copy_rows(
        old,
        stream,
        header.vertex.count,
        replaced={known.index(name): texts for name, texts in columns.items() if name in known},
        added=[columns[p.name] for p in new.vertex.properties if p.name not in known],
    )


def _code(dtype: np.dtype[Any]) -> str:
    return f"{dtype.kind}{dtype.itemsize}"
