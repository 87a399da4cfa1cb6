"""PLY files: vertices with any properties, as text or binary; other elements are copied as they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from pointseg.files.columns import columns_of, storable
from pointseg.files.labels import Labels
from pointseg.files.pieces import PIECE, Pieces, not_in_pieces
from pointseg.files.ply_faces import read_element, seek_element
from pointseg.files.ply_header import NAMES, Header, Property, extended, legend_lines, read_header
from pointseg.files.ply_lists import copy_lists, list_pieces, parse_lists, without_lists
from pointseg.files.rows import as_rows, copy_rows, row_pieces, with_columns
from pointseg.scene import Scene

COLORS = ("red", "green", "blue")


def read_ply(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of the vertices of a PLY file; their lists are left out."""
    header = read_header(path)
    vertex = header.vertex
    with open(path, "rb") as stream:
        seek_element(header, stream, vertex)
        if not vertex.has_lists:
            return _columns(read_element(header, stream, vertex))
        if not header.order:
            return _columns(parse_lists(header, stream, vertex))
        (rows,) = list_pieces(header, stream, vertex, max(vertex.count, 1))
        return _columns(rows.scalars(vertex, header.order))


def list_notes(path: Path) -> list[str]:
    """What the user should know of lists in the vertices of a PLY file."""
    lists = [p.name for p in read_header(path).vertex.properties if p.length_kind is not None]
    if not lists:
        return []
    return [f"lists of its points ({', '.join(lists)}) are not used; they stay in the result"]


def ply_pieces(path: Path) -> Pieces:
    """A binary PLY file in pieces.

    Raises:
        CloudFileError: it is malformed, or of lines of text.
    """
    header = read_header(path)
    vertex = header.vertex
    if not header.order:
        not_in_pieces(path)
    kind = without_lists(vertex).dtype(header.order)

    def read(size: int) -> Iterator[dict[str, NDArray[Any]]]:
        with open(path, "rb") as stream:
            seek_element(header, stream, vertex)
            if vertex.has_lists:
                for found in list_pieces(header, stream, vertex, size):
                    yield _columns(found.scalars(vertex, header.order))
                return
            for rows in row_pieces(path, stream, vertex.count, kind, size, what="vertex"):
                yield _columns(rows)

    return Pieces(vertex.count, kind.itemsize, read)


def write_ply(path: Path, scene: Scene, comments: Sequence[str] = ()) -> None:
    """A scene as a little-endian PLY file; positions are doubles if it has an origin."""
    columns = {key.replace(" ", "_"): storable(v) for key, v in columns_of(scene).items()}
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {text}" for text in comments)]
    lines.append(f"element vertex {len(scene)}")
    kinds = {key: f"{v.dtype.kind}{v.dtype.itemsize}" for key, v in columns.items()}
    lines += [f"property {NAMES[kind]} {key}" for key, kind in kinds.items()]
    header = "\n".join([*lines, "end_header", ""]).encode()
    with new_file(path) as part:
        part.write_bytes(header + as_rows(columns).tobytes())


def label_ply(source: Path, target: Path, labels: Labels) -> None:
    """Copy a PLY file with a class for each vertex; all else stays as it is."""
    header = read_header(source)
    vertex = header.vertex
    labels = labels.checked(source, vertex.count)
    kinds = {p.name: p.kind for p in vertex.properties}
    name = labels.field_in(source, kinds)
    more = dict(zip(labels.added_names(kinds), labels.added.values(), strict=True))
    added = [Property(name, labels.kind), *(Property(key, kind) for key, kind in more.items())]
    colors = [Property(color, kinds.get(color, "u1")) for color in COLORS]
    if labels.colors is not None:
        added += colors
    new = extended(header, added, legend_lines(name, labels.legend))
    with new_file(target) as part, open(source, "rb") as old, open(part, "wb") as stream:
        seek_element(header, old, vertex)
        start = old.tell()
        old.seek(header.size)
        stream.write(b"".join(new.lines) + old.read(start - header.size))
        write = _writer(header, new, old, stream)
        for first, segment in labels.pieces(PIECE):
            values: dict[str, NDArray[Any]] = {name: segment}
            found = labels.added_values(first, first + len(segment))
            values.update(zip(more, found, strict=True))
            if labels.colors is not None:
                for color, column in zip(colors, labels.paint(segment).T, strict=True):
                    values[color.name] = _in_range_of(color.kind, column)
            write(values)
        shutil.copyfileobj(old, stream)


def _writer(
    header: Header, new: Header, old: BufferedReader, stream: BufferedWriter
) -> Callable[[dict[str, NDArray[Any]]], None]:
    """Writes the next piece of the vertices with new values, in the form of the file."""
    vertex, order = header.vertex, header.order
    places = {p.name: number for number, p in enumerate(vertex.properties)}

    def write_lines(values: dict[str, NDArray[Any]]) -> None:
        if vertex.count and vertex.has_lists:
            copy_lists(header, old, stream, vertex, values)
        elif vertex.count:
            copy_rows(old, stream, places, values)

    if not order:
        return write_lines
    if vertex.has_lists:
        found = list_pieces(header, old, vertex, PIECE)
        return lambda values: _put(stream, next(found).changed(vertex, new.vertex, order, values))
    rows = row_pieces(header.path, old, vertex.count, vertex.dtype(order), PIECE, what="vertex")
    return lambda values: _put(stream, with_columns(next(rows), new.vertex.dtype(order), values))


def _put(stream: BufferedWriter, values: NDArray[Any]) -> None:
    """Write an array as it lies in memory."""
    stream.write(values.tobytes())


def _in_range_of(kind: str, color: NDArray[np.uint8]) -> NDArray[Any]:
    """Colours 0 to 255 in the range that properties of this type have."""
    if kind[0] == "f":
        return (color / 255).astype(kind)
    return color * np.uint16(257) if kind == "u2" else color.astype(kind)


def _columns(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    kinds = {name: rows.dtype[name].newbyteorder("=") for name in rows.dtype.names or ()}
    return {name: rows[name].astype(kind) for name, kind in kinds.items()}
