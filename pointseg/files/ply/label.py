"""Labelled PLY: copies in which other elements stay as they are, and clouds of types without a place for classes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.files.columns.to_scene import scene_of
from pointseg.files.labelling.labels import Labels
from pointseg.files.labelling.legend import legend_lines
from pointseg.files.ply.elements import seek_element
from pointseg.files.ply.header import Header, Property, extended, read_header
from pointseg.files.ply.lists import copy_lists, list_pieces
from pointseg.files.ply.write import write_ply
from pointseg.files.table.pieces import PIECE
from pointseg.files.table.rows import row_pieces, with_columns
from pointseg.files.table.text_rows import copy_rows

COLORS = ("red", "green", "blue")


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
    new = extended(header, added, legend_lines(labels, name, kinds))
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


def label_as_ply(
    source: Path, columns: Mapping[str, NDArray[Any]], target: Path, labels: Labels
) -> None:
    """Write the points of a file of another type as PLY, with a class for each.

    Args:
        source: the file, which has no place for classes.
        columns: what was read of it.
        target: the file to be.
        labels: of its points.

    Raises:
        CloudFileError: no columns x, y and z; labels of another number of points.
    """
    scene = scene_of(source, columns, name=source.stem)
    checked = labels.checked(source, len(scene))
    field = checked.field_in(source, scene.fields)
    new: dict[str, NDArray[Any]] = {field: checked.whole}
    more = zip(checked.added_values(), checked.added.values(), strict=True)
    found = [values.astype(kind)[:, None] for values, kind in more]  # as scenes have heights
    new.update(zip(checked.added_names(scene.fields), found, strict=True))
    if checked.colors is not None:
        new["color"] = checked.paint(checked.whole).astype(np.float32)
    comments = legend_lines(checked, field, scene.fields)
    write_ply(target, scene.without("segment").with_fields(**new), comments)


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
