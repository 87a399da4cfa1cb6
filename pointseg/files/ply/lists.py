"""Elements of a PLY file whose rows hold lists of any length: OpenMVS and CGAL write them for points, too.

Source: G. Turk, The PLY Polygon File Format, 1994.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BufferedReader, BufferedWriter, BytesIO
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.ply.header import Element, Header, Property
from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.pieces import ranges
from pointseg.files.table.rows import require_bytes, with_columns
from pointseg.files.table.text_rows import as_texts, filled_lines, parse_rows

BLOCK = 2**22
"""Bytes that are read at once."""
CODES = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I"}


def without_lists(element: Element) -> Element:
    """The same element with its single values alone."""
    return replace(
        element, properties=tuple(p for p in element.properties if p.length_kind is None)
    )


@dataclass(frozen=True)
class ListRows:
    """Rows of an element in binary, between whose single values lists stand."""

    data: NDArray[np.uint8]
    """All bytes of the rows."""
    parts: NDArray[np.int64]
    """(n, L + 1) where the values before the first list begin, behind the first one, ..., behind the last one."""
    ends: NDArray[np.int64]
    """(n,) where rows end."""

    def scalars(self, element: Element, order: str) -> NDArray[Any]:
        """(n,) structured rows of the single values."""
        rows = np.empty(len(self.ends), without_lists(element).dtype(order))
        for part, group in enumerate(_groups(element)):
            values = self._group(part, replace(element, properties=group).dtype(order))
            for name in values.dtype.names or ():
                rows[name] = values[name]
        return rows

    def changed(
        self, element: Element, new: Element, order: str, values: Mapping[str, NDArray[Any]]
    ) -> NDArray[np.uint8]:
        """The bytes of the same rows as those of an element with other single values, and the same lists.

        Args:
            element: what the rows are of.
            new: what they become.
            order: of bytes.
            values: (n,) those of the single values that are new.
        """
        old_sizes = [replace(element, properties=g).dtype(order).itemsize for g in _groups(element)]
        groups = [replace(new, properties=g).dtype(order) for g in _groups(new)]
        lists = self.parts[:, :-1] + old_sizes[:-1]
        lengths = self.parts[:, 1:] - lists
        whole = sum(kind.itemsize for kind in groups) + lengths.sum(1)
        at = np.cumsum(whole) - whole
        written = np.empty(int(whole.sum()), np.uint8)
        for part, kind in enumerate(groups):
            old = replace(element, properties=_groups(element)[part]).dtype(order)
            rows = with_columns(self._group(part, old), kind, values)
            places = at[:, None] + np.arange(kind.itemsize)
            written[places] = rows.view(np.uint8).reshape(len(rows), kind.itemsize)
            at = at + kind.itemsize
            if part < lists.shape[1]:
                length = lengths[:, part]
                step = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
                written[np.repeat(at, length) + step] = self.data[
                    np.repeat(lists[:, part], length) + step
                ]
                at = at + length
        return written

    def _group(self, part: int, kind: np.dtype[Any]) -> NDArray[Any]:
        places = self.parts[:, part, None] + np.arange(kind.itemsize)
        packed = np.ascontiguousarray(self.data[places])
        if not kind.itemsize:
            return np.empty(len(packed), kind)
        return packed.reshape(-1).view(kind)


def list_pieces(
    header: Header, stream: BufferedReader, element: Element, size: int
) -> Iterator[ListRows]:
    """Binary rows of an element in pieces of ``size``, from a stream that is at the first one.

    Raises:
        CloudFileError: the file is cut off, or the length of a list is below 0.
    """
    order, groups = header.order, _groups(element)
    sizes = [replace(element, properties=group).dtype(order).itemsize for group in groups]
    lists = [p for p in element.properties if p.length_kind is not None]
    steps = [
        (before, struct.Struct(order + CODES[p.length_kind or ""]), int(p.kind[1:]))
        for before, p in zip(sizes, lists, strict=False)
    ]
    least = sum(sizes) + sum(length.size for _, length, _ in steps)
    require_bytes(header.path, stream, element.count * least, f"rows of '{element.name}'")
    buffer, start = b"", stream.tell()
    for first, last in ranges(element.count, size):
        parts, ends = (
            np.empty((last - first, len(groups)), np.int64),
            np.empty(last - first, np.int64),
        )
        at = row = 0
        while row < last - first:
            end, places = at, []
            try:
                for before, length, item in steps:
                    places.append(end)
                    end += before
                    (many,) = length.unpack_from(buffer, end)
                    if many < 0:
                        raise CloudFileError(
                            header.path,
                            f"row {first + row + 1} of '{element.name}' has a list of {many}",
                        )
                    end += length.size + many * item
            except struct.error:
                end = len(buffer) + 1
            else:
                places.append(end)
                end += sizes[-1]
            if end > len(buffer):
                more = stream.read(max(BLOCK, end - len(buffer)) if end < 2**40 else BLOCK)
                if not more:
                    raise CloudFileError(
                        header.path,
                        f"is cut off within row {first + row + 1} of {element.count} rows of '{element.name}'; copy or "
                        "export it again",
                    )
                buffer += more
                continue
            parts[row], ends[row] = places, end
            at, row = end, row + 1
        data, buffer, start = buffer[:at], buffer[at:], start + at
        if last == element.count:
            stream.seek(start)
        yield ListRows(np.frombuffer(data, np.uint8), parts, ends)


def skip_lists(header: Header, stream: BufferedReader, element: Element) -> None:
    """Move behind the binary rows of an element with lists.

    Raises:
        CloudFileError: as ``list_pieces``.
    """
    for _ in list_pieces(header, stream, element, 100_000):
        pass


def parse_lists(header: Header, stream: BufferedReader, element: Element) -> NDArray[Any]:
    """(n,) structured rows of the single values of an element of lines of text.

    Raises:
        CloudFileError: the file is cut off or malformed.
    """
    lines = islice(filled_lines(stream), element.count)
    words = []
    for line in lines:
        split = line.split()
        words.append(b" ".join(split[place] for place in _places(header, element, split).values()))
    kind = without_lists(element).dtype(header.order)
    if len(words) < element.count:
        raise CloudFileError(
            header.path,
            f"is cut off: {len(words)} of {element.count} rows of '{element.name}' are there",
        )
    text = BufferedReader(BytesIO(b"\n".join(words)))
    return parse_rows(header.path, text, element.count, kind, what=element.name)  # type: ignore[arg-type]


def copy_lists(
    header: Header,
    old: BufferedReader,
    new: BufferedWriter,
    element: Element,
    values: Mapping[str, NDArray[Any]],
) -> None:
    """Copy the next lines of an element, with some single values replaced or appended; as ``text_rows.copy_rows``."""
    texts = {name: as_texts(column) for name, column in values.items()}
    count = len(next(iter(values.values())))
    for row, line in enumerate(islice(filled_lines(old), count)):
        words = line.split()
        places = _places(header, element, words)
        for name, column in texts.items():
            if name in places:
                words[places[name]] = column[row].encode()
            else:
                words.append(column[row].encode())
        new.write(b" ".join(words) + (line[len(line.rstrip(b"\r\n")) :] or b"\n"))


def _groups(element: Element) -> list[tuple[Property, ...]]:
    """The single values of a row before the first list, behind the first, and so on; some may be none."""
    groups: list[list[Property]] = [[]]
    for found in element.properties:
        if found.length_kind is None:
            groups[-1].append(found)
        else:
            groups.append([])
    return [tuple(group) for group in groups]


def _places(header: Header, element: Element, words: Sequence[bytes]) -> Mapping[str, int]:
    """Which word of a line each single value is."""
    places, at = {}, 0
    for found in element.properties:
        if found.length_kind is None:
            places[found.name] = at
            at += 1
            continue
        many = words[at] if at < len(words) else b""
        if not many.isdigit() or len(many) > 9:
            raise CloudFileError(
                header.path,
                f"the list '{found.name}' of '{element.name}' must begin with its length, got {many[:20]!r}",
            )
        at += 1 + int(many)
    if at != len(words):
        raise CloudFileError(
            header.path, f"a row of '{element.name}' has {len(words)} numbers, not {at}"
        )
    return places
