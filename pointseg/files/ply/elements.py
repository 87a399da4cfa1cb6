"""Elements of a PLY file: vertices, and faces that are triangles."""

from __future__ import annotations

from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.ply.header import Element, Header, read_header
from pointseg.files.ply.lists import skip_lists
from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.rows import read_rows, require_bytes
from pointseg.files.table.text_rows import filled_lines, parse_rows

FACE_LISTS = ("vertex_indices", "vertex_index")


def read_faces(path: Path) -> NDArray[np.int32]:
    """(F, 3) vertices of each triangle of a mesh.

    Raises:
        CloudFileError: it is not a PLY file, has no faces or other ones than triangles, is cut off, or
            has faces of missing vertices.
    """
    header = read_header(path)
    lists = {
        p.name: element
        for element in header.elements
        for p in element.properties
        if element.name == "face" and p.name in FACE_LISTS and p.length_kind
    }
    if not lists:
        raise CloudFileError(path, "has no element 'face' with a list 'vertex_indices'")
    name, element = lists.popitem()
    with open(path, "rb") as stream:
        seek_element(header, stream, element)
        triangles = read_element(header, stream, element)[name]
    if len(triangles) and not 0 <= triangles.min() <= triangles.max() < header.vertex.count:
        raise CloudFileError(path, f"has faces of vertices beyond its {header.vertex.count}")
    return triangles.astype(np.int32)


def seek_element(header: Header, stream: BufferedReader, wanted: Element) -> None:
    """Move to the first row of an element, over those before it.

    Raises:
        CloudFileError: the file ends earlier.
    """
    stream.seek(header.size)
    for element in header.elements[: header.elements.index(wanted)]:
        if not header.order:
            for _ in islice(filled_lines(stream), element.count):
                pass
        elif element.has_lists:
            skip_lists(header, stream, element)
        else:
            size = element.count * element.dtype(header.order).itemsize
            require_bytes(header.path, stream, size, f"rows of '{element.name}'")
            stream.seek(size, 1)


def read_element(header: Header, stream: BufferedReader, element: Element) -> NDArray[Any]:
    """The rows of an element as ``Element.dtype``, from a stream that is at the first one.

    Raises:
        CloudFileError: the file is cut off or malformed, or lists do not hold three values.
    """
    read = read_rows if header.order else parse_rows
    dtype = element.dtype(header.order)
    rows = read(header.path, stream, element.count, dtype, what=element.name)
    for name in (p.name for p in element.properties if p.length_kind):
        if (rows[f"{name} length"] != 3).any():
            raise CloudFileError(
                header.path,
                f"the lists '{name}' of '{element.name}' must hold three values each: only "
                "triangles are read; triangulate the mesh",
            )
    return rows
