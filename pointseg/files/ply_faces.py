"""Elements of a PLY file whose rows hold lists, such as faces: read, or skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.errors import CloudFileError
from pointseg.files.ply_header import Element, Header, read_header
from pointseg.files.rows import filled_lines, require_bytes

FACE_LISTS = ("vertex_indices", "vertex_index")

Take = Callable[[str, int], Sequence[Any]]
"""Takes the next values of a row, given their type and number."""


def read_faces(path: Path) -> NDArray[np.int32]:
    """(F, 3) vertices of each triangle of a mesh; polygons are cut into fans.

    Raises:
        CloudFileError: it is not a PLY file, has no faces, is cut off, or has faces of missing vertices.
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
            corners = _walk(header, stream, element, FACE_LISTS)
            fans = [(c[0], *pair) for c in corners for pair in zip(c[1:], c[2:], strict=False)]
            triangles = np.array(fans, np.int64).reshape(-1, 3)
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
            size = element.count * element.dtype(header.order).itemsize
            require_bytes(header.path, stream, size, f"rows of '{element.name}'")
            stream.seek(size, 1)


def _read_triangles(
    header: Header, stream: BufferedReader, element: Element
) -> NDArray[np.signedinteger[Any]] | None:
    """All at once, where the only list has three vertices in every row; else None, nothing is read."""
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


def _walk(
    header: Header, stream: BufferedReader, element: Element, names: Sequence[str]
) -> list[list[int]]:
    """Go over an element row by row; returns the lists of the property that is among ``names``."""
    found: list[list[int]] = []
    rows = 0
    try:
        for take in (_binary_rows if header.order else _text_rows)(header, stream, element):
            rows += 1
            for each in element.properties:
                length = 1 if each.length_kind is None else int(take(each.length_kind, 1)[0])
                values = take(each.kind, length)
                if each.name in names:
                    found.append([int(value) for value in values])
    except ValueError as error:
        raise CloudFileError(
            header.path, f"is cut off or malformed in row {rows} of '{element.name}': {error}"
        ) from error
    if rows < element.count:
        raise CloudFileError(
            header.path,
            f"is cut off: {rows} of {element.count} rows of '{element.name}' are there",
        )
    return found


def _binary_rows(header: Header, stream: BufferedReader, element: Element) -> Iterator[Take]:
    least = sum(np.dtype(p.length_kind or p.kind).itemsize for p in element.properties)
    require_bytes(header.path, stream, element.count * least, f"rows of '{element.name}'")
    start = stream.tell()
    data, at = memoryview(stream.read()), 0

    def take(kind: str, length: int) -> Sequence[Any]:
        nonlocal at
        begin, at = at, at + length * int(kind[1])
        if length < 0 or at > len(data):
            raise ValueError(f"a list of length {length} goes beyond the end")
        return np.frombuffer(data[begin:at], header.order + kind).tolist()

    for _ in range(element.count):
        yield take
    stream.seek(start + at)


def _text_rows(header: Header, stream: BufferedReader, element: Element) -> Iterator[Take]:
    """A row is a line."""
    for line in islice(filled_lines(stream), element.count):
        words = line.split()

        def take(kind: str, length: int, words: list[bytes] = words) -> Sequence[Any]:
            if not 0 <= length <= len(words):
                raise ValueError(f"{length} values are to follow, {len(words)} do")
            values = words[:length]
            del words[:length]
            return values

        yield take
        if words:
            raise ValueError(f"{len(words)} values too many")
