"""The header of a PLY file: which tables it holds, of which properties, in which form.

Source: G. Turk, The PLY Polygon File Format, 1994.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pointseg.files.labelling.legend import is_replaced
from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.rows import header_lines

TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
NAMES = {
    "i1": "char", "u1": "uchar", "i2": "short", "u2": "ushort", "i4": "int", "u4": "uint",
    "f4": "float", "f8": "double",
}  # fmt: skip
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class Property:
    """One value of each row of an element, or a list of values."""

    name: str
    """The name of the property."""
    kind: str
    """Numpy's code of its type, without byte order: i1, u1, ... f8."""
    length_kind: str | None = None
    """The code of the length that stands before the values of a list; None: not a list."""
    line: int = -1
    """The number of its line in the header."""


@dataclass(frozen=True)
class Element:
    """A table: vertex, face, ..."""

    name: str
    """The name of the table."""
    count: int
    """How many rows it has."""
    line: int
    """The number of its line in the header."""
    properties: tuple[Property, ...] = ()
    """The values of each row in order."""

    @property
    def has_lists(self) -> bool:
        """Whether rows may differ in size."""
        return any(p.length_kind is not None for p in self.properties)

    def dtype(self, order: str) -> np.dtype[Any]:
        """Of one packed row; lists are taken to hold three values, as those of triangles do."""
        parts: list[Any] = []
        for p in self.properties:
            if p.length_kind is not None:
                parts.append((f"{p.name} length", order + p.length_kind))
            parts.append((p.name, order + p.kind, (3,) if p.length_kind else ()))
        return np.dtype(parts)


@dataclass(frozen=True)
class Header:
    """What a PLY file says before its data."""

    path: Path
    """The file, for messages."""
    order: str
    """The byte order "<" or ">"; "" for text."""
    elements: tuple[Element, ...]
    """The tables in the order of their data."""
    lines: tuple[bytes, ...]
    """All lines of the header as they are, with their ends."""

    @property
    def size(self) -> int:
        """Bytes of the header."""
        return sum(map(len, self.lines))

    @property
    def vertex(self) -> Element:
        """The table of points."""
        for element in self.elements:
            if element.name == "vertex":
                return element
        raise CloudFileError(self.path, "has no element 'vertex', hence no points")


def read_header(path: Path) -> Header:
    """The header of a PLY file.

    Raises:
        CloudFileError: it is not a PLY file, or its header is malformed.
    """
    return _parse(path, header_lines(path, "end_header"))


def extended(header: Header, added: Sequence[Property], legend: Sequence[str] = ()) -> Header:
    """The same with these properties of the vertices added, or changed in type where they exist.

    Args:
        header: of a file.
        added: the properties.
        legend: comments that name the classes, which replace those of an earlier prediction.
    """
    vertex = header.vertex
    end = b"\r\n" if header.lines[0].endswith(b"\r\n") else b"\n"
    known = {p.name: p for p in vertex.properties}
    lines = list(header.lines)
    for found in added:
        if found.name in known:
            lines[known[found.name].line] = _line(found) + end
    after = max([vertex.line, *(p.line for p in vertex.properties)]) + 1
    lines[after:after] = [_line(p) + end for p in added if p.name not in known]
    lines = [
        line
        for line in lines
        if line.split()[:1] != [b"comment"]
        or not is_replaced(line.strip().removeprefix(b"comment"), legend, known)
    ]
    lines[2:2] = [b"comment " + text.encode() + end for text in legend]
    return _parse(header.path, lines)


def _parse(path: Path, lines: Sequence[bytes]) -> Header:
    if lines[0].strip() != b"ply":
        raise CloudFileError(path, "is not a PLY file: its first line is not 'ply'")
    order: str | None = None
    elements: list[Element] = []
    for number, raw in enumerate(lines):
        words = raw.decode("utf-8", "surrogateescape").split()
        if number == 0 or not words or words[0] in ("comment", "obj_info", "end_header"):
            continue
        if words[0] == "format" and len(words) == 3 and words[1] in ORDERS:
            order = ORDERS[words[1]]
        elif words[0] == "element" and len(words) == 3 and words[2].isdecimal():
            elements.append(Element(words[1], int(words[2]), number))
        elif words[0] == "property" and elements and (found := _property(words)) is not None:
            last = elements.pop()
            elements.append(
                replace(last, properties=(*last.properties, replace(found, line=number)))
            )
        else:
            raise CloudFileError(
                path, f"line {number + 1} of its header is not PLY: {' '.join(words)[:80]!r}"
            )
    if order is None:
        raise CloudFileError(path, f"its header must have a line 'format' with {', '.join(ORDERS)}")
    for names in [[e.name for e in elements], *([p.name for p in e.properties] for e in elements)]:
        if len(set(names)) != len(names):
            raise CloudFileError(path, f"its header holds a name twice: {', '.join(names)}")
    return Header(path, order, tuple(elements), tuple(lines))


def _property(words: list[str]) -> Property | None:
    if len(words) == 3 and words[1] in TYPES:
        return Property(words[2], TYPES[words[1]])
    is_list = len(words) == 5 and words[1] == "list"
    if is_list and words[2] in TYPES and words[3] in TYPES and TYPES[words[2]][0] != "f":
        return Property(words[4], TYPES[words[3]], TYPES[words[2]])
    return None


def _line(found: Property) -> bytes:
    return f"property {NAMES[found.kind]} {found.name}".encode("utf-8", "surrogateescape")
