"""Text in LAS headers, which may be of any encoding: kept as bytes, whatever laspy makes of it.

laspy reads a file through ``HeaderView``, which shows blanks in place of names that it would have to decode; in the
copy that it writes, ``restore_text`` puts the bytes of the source back.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from pointseg.files.las.header import LasHeader, Record, parse_header

MARK = b"record-"
"""Stands with a number in place of who defines a record."""
SPEC, EXTRA_BYTES = b"LASF_Spec", 4
COPC = b"copc"
NEEDED = ((SPEC, EXTRA_BYTES), (b"laszip encoded", 22204))
"""Records that laspy itself must know."""
BUFFER = 2**18
"""Bytes that are read at once."""
DIMENSION = 192
"""Bytes of the description of an extra dimension."""
NAMES = ((4, 36), (160, 192))
"""Where its name and its text are."""
FIRST, TEXT = (4, 24), (26, 94)
"""Source, flags and project of a file; who made it with what, and the day."""


class HeaderView(io.FileIO):
    """A file of which some bytes look different; behind a ``BufferedReader``."""

    def __init__(self, path: Path, shown: Sequence[tuple[int, bytes]]) -> None:
        """Open a file.

        Args:
            path: the file.
            shown: places, and the bytes that are seen there.
        """
        super().__init__(path)
        self._shown = shown

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """As that of a file."""
        start = self.tell()
        count = super().readinto(buffer) or 0
        view = memoryview(buffer).cast("B")
        for at, data in self._shown:
            low, high = max(at, start), min(at + len(data), start + count)
            if low < high:
                view[low - start : high - start] = data[low - at : high - at]
        return count


def open_view(header: LasHeader) -> io.BufferedReader:
    """A file as laspy may see it: without text that it would decode, records by numbers."""
    shown = [(TEXT[0], bytes(64))]
    if header.version == (1, 0):  # which differs from 1.1 in what is text or unused here
        shown.append((25, b"\x01"))
    for number, record in enumerate((*header.records, *header.extended)):
        if (record.user, record.number) not in NEEDED:
            shown.append((record.at + 2, MARK + b"%08d\0" % number))
            shown.append((record.at + len(record.head) - 32, bytes(32)))
        elif record.user == SPEC:
            shown += [(record.content_at + at, text) for at, text, _ in _dimensions(header, record)]
    return io.BufferedReader(HeaderView(header.path, shown), BUFFER)


def original(header: LasHeader, user: str) -> Record | None:
    """The record of the file that laspy sees under a name; None: it is no name of ours."""
    found = re.fullmatch(rf"{MARK.decode()}(\d+)", user)
    records = (*header.records, *header.extended)
    return records[int(found[1])] if found and int(found[1]) < len(records) else None


def restore_text(header: LasHeader, written: IO[bytes]) -> None:
    """Put the text of a file into a copy that laspy has written.

    Args:
        header: of the file.
        written: the copy, open to be read and written.
    """
    copy = parse_header(header.path, written)
    for start, stop in (FIRST, TEXT):
        _put(written, start, header.head[start:stop])
    if (header.version, copy.version) == ((1, 0), (1, 1)):
        _put(written, 25, b"\0")
    names = {
        text: raw
        for record in header.records
        if (record.user, record.number) == (SPEC, EXTRA_BYTES)
        for _, text, raw in _dimensions(header, record)
    }
    for record in (*copy.records, *copy.extended):
        source = original(header, record.user.decode("ascii", "replace"))
        if source is not None:
            _put(written, record.at, source.head[:18])
            _put(written, record.at + len(record.head) - 32, source.head[-32:])
        elif (record.user, record.number) == (SPEC, EXTRA_BYTES):
            for at in range(record.content_at, record.content_at + record.size, DIMENSION):
                for start, stop in NAMES:
                    written.seek(at + start)
                    raw = names.get(written.read(stop - start))
                    if raw is not None:
                        _put(written, at + start, raw)
    written.seek(0, 2)


def _put(stream: IO[bytes], at: int, data: bytes) -> None:
    stream.seek(at)
    stream.write(data)


def _dimensions(header: LasHeader, record: Record) -> Iterator[tuple[int, bytes, bytes]]:
    """Names and texts of extra dimensions that are not UTF-8: place in the content, as shown, as they are."""
    content = header.content(record, 2**16)
    for number, at in enumerate(range(0, len(content) - DIMENSION + 1, DIMENSION)):
        for start, stop in NAMES:
            raw = content[at + start : at + stop]
            try:
                raw.decode()
            except UnicodeDecodeError:
                spare = b"%d" % number  # two names may differ in what is not shown
                shown = bytes(byte if byte < 128 else ord("_") for byte in raw.split(b"\0")[0])
                yield (
                    at + start,
                    (shown[: 32 - len(spare) - 1] + b"_" + spare).ljust(32, b"\0"),
                    raw,
                )
