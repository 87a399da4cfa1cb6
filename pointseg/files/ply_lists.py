"""Tables of a PLY file whose rows hold lists, such as faces: read, or gone over to what follows."""

from __future__ import annotations

from collections.abc import Sequence
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.errors import CloudFileError
from pointseg.files.ply_header import Element, Header, read_header
from pointseg.files.rows import filled_lines

FACE_LISTS = ("vertex_indices", "vertex_index")


def read_faces(path: Path) -> NDArray[np.int32]:
    """(F, 3) vertices of each triangle of a mesh; polygons are cut into fans.

    Raises:
        CloudFileError: not a PLY file; no faces, cut off, or faces of vertices that are not there.
    """
    header = read_header(path)
    element = next((e for e in header.elements if e.name == "face"), None)
    if element is None or not any(
        p.name in FACE_LISTS and p.length_kind for p in element.properties
    ):
        raise CloudFileError(path, "has no element 'face' with a list 'vertex_indices'")
    with open(path, "rb") as stream:
        seek_element(header, stream, element)
        triangles = _read_triangles(header, stream, element)
        if triangles is None:
            lists = _walk(header, stream, element, FACE_LISTS)
            triangles = _fans(lists)
    if len(triangles) and not 0 <= triangles.min() <= triangles.max() < header.vertex.count:
        raise CloudFileError(path, f"has faces of vertices beyond its {header.vertex.count}")
    return triangles.astype(np.int32)


def seek_element(header: Header, stream: BufferedReader, wanted: Element) -> None:
    """Move to the first row of an element, over those before it.

    Raises:
        CloudFileError: the file ends earlier.
    """
    stream.seek(header.size)
    for element in header.elements:
        if element is wanted:
            return
        if not header.order:
            for _ in islice(filled_lines(stream), element.count):
                pass
        elif element.has_lists:
            _walk(header, stream, element, ())
        else:
            require_bytes(header, stream, element)
            stream.seek(element.count * element.dtype(header.order).itemsize, 1)


def require_bytes(header: Header, stream: BufferedReader, element: Element) -> None:
    """Refuse a file that is too short before memory for its rows is asked for.

    Raises:
        CloudFileError: fewer bytes are left than the rows of ``element`` take.
    """
    left = header.path.stat().st_size - stream.tell()
    row = sum(np.dtype(p.length_kind or p.kind).itemsize for p in element.properties)
    if element.count * row > left:
        raise CloudFileError(
            header.path,
            f"is cut off: {element.count} rows of '{element.name}' take {element.count * row} bytes "
            f"or more, {left} are left; copy or export it again",
        )


def _read_triangles(
    header: Header, stream: BufferedReader, element: Element
) -> NDArray[np.signedinteger[Any]] | None:
    """At once, where the only list holds three vertices in every row; else None, nothing is read."""
    lists = [p for p in element.properties if p.length_kind is not None]
    if not header.order or len(lists) != 1:
        return None
    parts: list[Any] = []
    for number, found in enumerate(element.properties):
        if found.length_kind is not None:
            parts.append(("length", header.order + found.length_kind))
            parts.append(("triangle", header.order + found.kind, 3))
        else:
            parts.append((f"other {number}", header.order + found.kind))
    row, start = np.dtype(parts), stream.tell()
    if header.path.stat().st_size - start >= element.count * row.itemsize:
        rows = np.fromfile(stream, row, element.count)
        if (rows["length"] == 3).all():
            return rows["triangle"].astype(np.int64)
    stream.seek(start)
    return None


def _fans(lists: list[list[int]]) -> NDArray[np.int64]:
    triangles = [
        (corners[0], b, c)
        for corners in lists
        for b, c in zip(corners[1:], corners[2:], strict=False)
    ]
    return np.array(triangles, np.int64).reshape(-1, 3)


def _walk(
    header: Header, stream: BufferedReader, element: Element, names: Sequence[str]
) -> list[list[int]]:
    """Go over an element row by row; the lists of the property that is among ``names``."""
    if not header.order:
        return _walk_text(header, stream, element, names)
    require_bytes(header, stream, element)
    start = stream.tell()
    data, at = memoryview(stream.read()), 0
    kinds = [
        (p.name in names, np.dtype(header.order + p.kind), p.length_kind)
        for p in element.properties
    ]
    found: list[list[int]] = []
    try:
        for _ in range(element.count):
            for wanted, kind, length_kind in kinds:
                length = 1
                if length_kind is not None:
                    length_dtype = np.dtype(header.order + length_kind)
                    length = int(np.frombuffer(data, length_dtype, 1, at)[0])
                    at += length_dtype.itemsize
                size = length * kind.itemsize
                if length < 0 or at + size > len(data):
                    raise ValueError(f"a list of length {length} goes beyond the end")
                if wanted:
                    found.append(np.frombuffer(data[at : at + size], kind).tolist())
                at += size
    except ValueError as error:
        raise CloudFileError(
            header.path, f"is cut off or damaged in '{element.name}': {error}"
        ) from error
    stream.seek(start + at)
    return found


def _walk_text(
    header: Header, stream: BufferedReader, element: Element, names: Sequence[str]
) -> list[list[int]]:
    """The same from text, where a row is a line."""
    found: list[list[int]] = []
    rows = 0
    for line in islice(filled_lines(stream), element.count):
        rows += 1
        words, at = line.split(), 0
        try:
            for each in element.properties:
                length = 1
                if each.length_kind is not None:
                    length, at = int(words[at]), at + 1
                if each.name in names:
                    found.append([int(word) for word in words[at : at + length]])
                at += length
        except (ValueError, IndexError):
            at = -1
        if at != len(words):
            raise CloudFileError(header.path, f"row {rows} of '{element.name}' is malformed")
    if rows < element.count:
        raise CloudFileError(
            header.path,
            f"is cut off: {rows} of {element.count} rows of '{element.name}' are there",
        )
    return found
