"""PLY files: vertices with any properties, as text or binary, as a whole or in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pointseg.files.ply.elements import read_element, seek_element
from pointseg.files.ply.header import read_header
from pointseg.files.ply.lists import list_pieces, parse_lists, without_lists
from pointseg.files.table.pieces import Pieces, not_in_pieces
from pointseg.files.table.rows import row_pieces


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


def _columns(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    kinds = {name: rows.dtype[name].newbyteorder("=") for name in rows.dtype.names or ()}
    return {name: rows[name].astype(kind) for name, kind in kinds.items()}
