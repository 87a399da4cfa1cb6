"""The header of a PCD file: its fields, how many points, in which form.

Source: Point Cloud Library, The PCD (Point Cloud Data) file format, version 0.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pointseg.files.labelling.legend import is_replaced
from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.rows import header_lines

KEYS = ("VERSION", "FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA")  # fmt: skip
FORMS = ("ascii", "binary", "binary_compressed")
SIZES = {"F": (4, 8), "I": (1, 2, 4, 8), "U": (1, 2, 4, 8)}
POINT_LIMIT = 10_000_000  # bytes; a header that says more is malformed
PADDING = "_"
PACKED = ("rgb", "rgba")
"""Fields that hold a colour in one value of four bytes, 0xAARRGGBB, whatever their type is called."""


@dataclass(frozen=True)
class Field:
    """One field of a point."""

    name: str
    """Its name; "_" is padding, of which there may be several."""
    kind: str
    """Numpy's code of its type, without byte order: files are little-endian."""
    count: int = 1
    """How many values each point has."""

    @property
    def is_packed(self) -> bool:
        """Whether it holds a colour in one value."""
        return self.name in PACKED and self.count == 1 and self.kind in ("f4", "u4", "i4")


@dataclass(frozen=True)
class Header:
    """What a PCD file says before its data."""

    path: Path
    """The file, for messages."""
    fields: tuple[Field, ...]
    """The fields of each point in order."""
    points: int
    """How many points there are."""
    form: str
    """How the data are stored, one of ``FORMS``."""
    lines: tuple[bytes, ...]
    """All lines of the header as they are, with their ends."""

    @property
    def size(self) -> int:
        """Bytes of the header."""
        return sum(map(len, self.lines))

    @property
    def keys(self) -> list[str]:
        """The names of the fields' columns: those of the fields, but for padding with their number."""
        names = [f.name for f in self.fields]
        return [f"_ {i}" if name == PADDING else name for i, name in enumerate(names)]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of one point, packed; columns of several values are subarrays."""
        shapes = [(f.count,) if f.count > 1 else () for f in self.fields]
        kinds = ["<" + f.kind for f in self.fields]
        return np.dtype(list(zip(self.keys, kinds, shapes, strict=True)))


def read_header(path: Path) -> Header:
    """The header of a PCD file.

    Raises:
        CloudFileError: it is not a PCD file, or its header is malformed.
    """
    return _parse(path, header_lines(path, "DATA"))


def extended(header: Header, added: Sequence[Field], legend: Sequence[str] = ()) -> Header:
    """The same with these fields added, or changed in type where they exist.

    Args:
        header: of a file.
        added: the fields.
        legend: comments that name the classes, which replace those of an earlier prediction.
    """
    old = zip(header.keys, header.fields, strict=True)
    new = list((dict(old) | {f.name: f for f in added}).values())
    words = {
        b"FIELDS": [f.name for f in new],
        b"SIZE": [f.kind[1] for f in new],
        b"TYPE": [f.kind[0].upper() for f in new],
        b"COUNT": [str(f.count) for f in new],
    }
    lines: list[bytes] = []
    for line in header.lines:
        if line.startswith(b"#") and is_replaced(line[1:], legend, header.keys):
            continue
        key = line.split()[0] if line.split() else b""
        if key in words:
            end = line[len(line.rstrip(b"\r\n")) :]
            line = key + b" " + " ".join(words[key]).encode("utf-8", "surrogateescape") + end
        lines.append(line)
    end = b"\r\n" if lines[0].endswith(b"\r\n") else b"\n"
    first = next(number for number, line in enumerate(lines) if not line.startswith(b"#"))
    lines[first:first] = [b"# " + text.encode() + end for text in legend]  # before any keyword
    return _parse(header.path, lines)


def _parse(path: Path, lines: Sequence[bytes]) -> Header:
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        words = line.decode("utf-8", "surrogateescape").split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] not in KEYS or words[0] in found:
            problem = "occurs twice" if words[0] in found else "is not of a PCD header"
            raise CloudFileError(path, f"line {number} {problem}: {' '.join(words)[:80]!r}")
        found[words[0]] = words[1:]
    missing = [key for key in ("FIELDS", "SIZE", "TYPE", "DATA") if key not in found]
    if missing:
        raise CloudFileError(path, f"its header lacks {', '.join(missing)}")
    names = found["FIELDS"]
    sizes, kinds = found["SIZE"], found["TYPE"]
    counts = found.get("COUNT", ["1"] * len(names))
    if not len(names) == len(sizes) == len(kinds) == len(counts):
        raise CloudFileError(
            path,
            f"its header names {len(names)} FIELDS, but {len(sizes)} SIZE, {len(kinds)} TYPE and "
            f"{len(counts)} COUNT",
        )
    fields = []
    for name, size, kind, count in zip(names, sizes, kinds, counts, strict=True):
        if size not in map(str, SIZES.get(kind, ())) or not count.isdecimal() or int(count) < 1:
            raise CloudFileError(
                path, f"field '{name}' cannot have TYPE {kind}, SIZE {size} and COUNT {count}"
            )
        fields.append(Field(name, kind.lower() + size, int(count)))
    if sum(int(f.kind[1]) * f.count for f in fields) > POINT_LIMIT:
        raise CloudFileError(path, f"its header says that a point has over {POINT_LIMIT} bytes")
    used = [name for name in names if name != PADDING]
    if len(set(used)) != len(used):
        raise CloudFileError(path, f"its header names a field twice: {', '.join(used)}")
    if found["DATA"] not in ([form] for form in FORMS):
        raise CloudFileError(
            path, f"DATA must be {', '.join(FORMS)}, got {' '.join(found['DATA'])!r}"
        )
    return Header(path, tuple(fields), _points(path, found), found["DATA"][0], tuple(lines))


def _points(path: Path, found: dict[str, list[str]]) -> int:
    numbers = {}
    for key in ("WIDTH", "HEIGHT", "POINTS"):
        words = found.get(key)
        if words is None:
            continue
        if len(words) != 1 or not words[0].isdecimal():
            raise CloudFileError(path, f"{key} must be a whole number, got {' '.join(words)!r}")
        numbers[key] = int(words[0])
    if "POINTS" not in numbers and "WIDTH" not in numbers:
        raise CloudFileError(path, "its header says neither POINTS nor WIDTH")
    area = numbers.get("WIDTH", 0) * numbers.get("HEIGHT", 1)
    points = numbers.get("POINTS", area)
    if "WIDTH" in numbers and area != points:
        raise CloudFileError(path, f"WIDTH times HEIGHT is {area}, but POINTS is {points}")
    return points
