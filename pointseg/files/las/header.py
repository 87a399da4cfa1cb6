"""The header of a LAS or LAZ file and its records, as bytes, checked against the size of the file.

Source: ASPRS, LAS Specification 1.4 - R15, and those of versions 1.0 to 1.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from pointseg.files.las.laz_chunks import check_chunks
from pointseg.files.table.errors import CloudFileError

VERSIONS = ((1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5))
SIZES = {0: 227, 1: 227, 2: 227, 3: 235, 4: 375, 5: 393}
"""Bytes of the header by the second number of the version, at least."""
RECORD, EXTENDED_RECORD = 54, 60
"""Bytes before the content of a record."""
UNCOMPRESSED = 64
"""Numbers of point formats from here on are of compressed points."""
NO_CHUNKS = 64
"""Bytes that no points take, compressed, at most: their table of chunks."""
PACKING = (b"laszip encoded", 22204)
"""The record that says how points are compressed."""
INTERNAL_WAVES = 2
"""Bit of a header that says that waveforms stand behind the points."""
EDIT = "copy or export it again"


@dataclass(frozen=True)
class Record:
    """A record of a file, as it stands there."""

    at: int
    """Where it begins."""
    head: bytes
    """Its first 54 or 60 bytes."""
    size: int
    """Bytes of its content, which follows."""

    @property
    def user(self) -> bytes:
        """Who defines what the record means."""
        return self.head[2:18].split(b"\0")[0]

    @property
    def number(self) -> int:
        """Which one of the user's records it is."""
        return int.from_bytes(self.head[18:20], "little")

    @property
    def content_at(self) -> int:
        """Where its content begins."""
        return self.at + len(self.head)


@dataclass(frozen=True)
class LasHeader:
    """What a file says before its points."""

    path: Path
    """The file, for messages."""
    head: bytes
    """Its first bytes, up to 375."""
    records: tuple[Record, ...]
    """Those before the points."""
    extended: tuple[Record, ...]
    """Those behind the points."""
    file_bytes: int
    """Size of the file."""

    @property
    def version(self) -> tuple[int, int]:
        """Such as (1, 4)."""
        return self.head[24], self.head[25]

    @property
    def points_at(self) -> int:
        """Where the points begin."""
        return int.from_bytes(self.head[96:100], "little")

    @property
    def row_bytes(self) -> int:
        """Bytes of a point that is not compressed."""
        return int.from_bytes(self.head[105:107], "little")

    @property
    def is_packed(self) -> bool:
        """Whether points are compressed."""
        return self.head[104] >= UNCOMPRESSED

    @property
    def legacy_count(self) -> int:
        """Points by the field of 32 bits that files of version 1.4 may leave at 0."""
        return int.from_bytes(self.head[107:111], "little")

    @property
    def count(self) -> int:
        """Points by the header."""
        return _count(self.head)

    @property
    def returns(self) -> int:
        """Points by the header's numbers of points of each return; 0 where nobody filled them."""
        if self.version[1] >= 4:
            return sum(struct.unpack_from("<15Q", self.head, 255))
        return sum(struct.unpack_from("<5I", self.head, 111))

    @cached_property
    def box(self) -> NDArray[np.float64]:
        """(3, 2) smallest and largest x, y and z, as the header has them."""
        return np.array(struct.unpack_from("<6d", self.head, 179)).reshape(3, 2)[:, ::-1]

    def content(self, record: Record, most: int) -> bytes:
        """The first ``most`` bytes of a record's content."""
        with open(self.path, "rb") as stream:
            stream.seek(record.content_at)
            return stream.read(min(record.size, most))


def read_header(path: Path) -> LasHeader:
    """Read and check the header of a file.

    Raises:
        CloudFileError: not such a file, cut off, of an unknown version, or its numbers of points and records do
            not fit the file or each other.
    """
    with open(path, "rb") as stream:
        return parse_header(path, stream)


def parse_header(path: Path, stream: IO[bytes]) -> LasHeader:
    """As ``read_header``, of an open file; ``path`` is for messages."""
    size = stream.seek(0, 2)
    stream.seek(0)
    head = stream.read(375)
    if head[:4] != b"LASF" or len(head) < 227:
        raise CloudFileError(path, "is not a LAS file, or cut off: it must begin with LASF")
    if (head[24], head[25]) not in VERSIONS:
        raise CloudFileError(
            path,
            f"its header says LAS version {head[24]}.{head[25]}, known are 1.0 to 1.5; write it again with the program "
            "that made it, or with another one, such as PDAL",
        )
    if len(head) < min(SIZES[head[25]], 375):
        raise CloudFileError(path, "is cut off within its header")
    _check_sizes(path, head, size)
    records_at, number = (
        struct.unpack_from("<H", head, 94)[0],
        struct.unpack_from("<I", head, 100)[0],
    )
    points_at = struct.unpack_from("<I", head, 96)[0]
    records = tuple(_walk(path, stream, records_at, number, RECORD, points_at))
    late: tuple[Record, ...] = ()
    if head[25] >= 4:
        late_at, number = struct.unpack_from("<QI", head, 235)
        late = tuple(_walk(path, stream, late_at, number, EXTENDED_RECORD, size))
    header = LasHeader(path, head, records, late, size)
    _check_counts(header)
    if header.is_packed:
        packing = _packing(stream, records)
        check_chunks(path, stream, points_at, header.row_bytes, header.count, packing)
    return header


def _packing(stream: IO[bytes], records: tuple[Record, ...]) -> bytes:
    """How points are compressed; nothing where no record says it, which the reader of points refuses."""
    for record in records:
        if (record.user, record.number) == PACKING:
            stream.seek(record.content_at)
            return stream.read(record.size)
    return b""


def header_notes(header: LasHeader) -> list[str]:
    """What the user should know of numbers in a header that do not agree."""
    notes = []
    if header.returns > header.count:  # fewer are usual: points of no return are in none of them
        notes.append(
            f"its header announces {header.count} points, but {header.returns} by its numbers of each return; "
            f"{header.count} were read"
        )
    if header.legacy_count not in (0, header.count):
        notes.append(
            f"its header announces {header.count} points in one place, {header.legacy_count} in another; "
            f"{header.count} were read"
        )
    return notes


def _count(head: bytes) -> int:
    found: int = struct.unpack_from("<Q", head, 247)[0] if head[25] >= 4 else 0
    return found if head[25] >= 4 else int(struct.unpack_from("<I", head, 107)[0])


def _check_sizes(path: Path, head: bytes, size: int) -> None:
    """Refuse numbers of records and points that the file cannot hold, which would be allocated."""
    header_size, points_at, records = struct.unpack_from("<HII", head, 94)
    form, row = struct.unpack_from("<BH", head, 104)
    extended_at = extended = 0
    if head[25] >= 4:
        extended_at, extended = struct.unpack_from("<QI", head, 235)
    needed = _count(head) * row
    if header_size < SIZES[head[25]]:
        what = f"its header takes {header_size} bytes, at least {SIZES[head[25]]} in this version"
    elif not header_size + RECORD * records <= points_at <= size:
        what = f"{records} records do not fit before the points"
    elif extended and extended_at + EXTENDED_RECORD * extended > size:
        what = f"{extended} extended records at {extended_at} are missing"
    elif form < UNCOMPRESSED and points_at + needed > size:
        what = f"{_count(head)} points take {needed} bytes, {size - points_at} are left"
    else:
        return
    raise CloudFileError(path, f"is cut off or damaged: {what}; {EDIT}")


def _check_counts(header: LasHeader) -> None:
    """Refuse numbers of points that disagree with the file, as a program leaves them that ends before it is done."""
    count, legacy, row = header.count, header.legacy_count, header.row_bytes
    end = header.extended[0].at if header.extended else header.file_bytes
    left = end - header.points_at
    rows, more = divmod(left - count * row, row) if row and not header.is_packed else (0, 1)
    if header.is_packed and count == 0:
        rows, more = left, left < NO_CHUNKS
    has_waves = header.head[6] & INTERNAL_WAVES
    if rows > 0 and not more and not has_waves:
        what = f"its header announces {count} points, and {left - count * row} bytes follow them"
    elif (
        legacy not in (0, count) and count < 2**32 and count != header.returns and header.is_packed
    ):
        what = f"its header announces {count} points in one place, {legacy} in another"
    else:
        return
    raise CloudFileError(
        header.path, f"{what}: the program that wrote it did not finish, or it is damaged; {EDIT}"
    )


def _walk(
    path: Path, stream: IO[bytes], at: int, number: int, head_bytes: int, end: int
) -> Iterator[Record]:
    """Records that follow each other from ``at`` on."""
    for index in range(number):
        stream.seek(at)
        head = stream.read(head_bytes)
        if len(head) < head_bytes:
            raise CloudFileError(
                path, f"is cut off or damaged: record {index + 1} is missing; {EDIT}"
            )
        size = int.from_bytes(
            head[20:28] if head_bytes == EXTENDED_RECORD else head[20:22], "little"
        )
        if at + head_bytes + size > end:
            raise CloudFileError(
                path,
                f"is cut off or damaged: record {index + 1} of {number} takes {size} bytes, which are not there; "
                f"{EDIT}",
            )
        yield Record(at, head, size)
        at += head_bytes + size
