"""DICOM files grouped into series by their headers."""

from __future__ import annotations

import os
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from dinomed3d.inference.dicom.frames import is_multi_frame, read_frames
from dinomed3d.inference.dicom.header import (
    BrokenDicomError,
    Header,
    looks_like_dicom,
    read_header,
)
from dinomed3d.inference.dicom.quiet import quiet_libraries
from dinomed3d.inference.dicom.sop_classes import is_localizer, not_a_slice
from dinomed3d.runtime.files.safe_zip import DAMAGED
from dinomed3d.runtime.messages.counted import counted

_DICOM_ENDINGS = ("", ".dcm", ".dicom", ".dic", ".ima")
"""Names of DICOM files; files with DICOM's preamble are read whatever they are called."""


@dataclass(frozen=True, kw_only=True)
class SliceFile:
    """One DICOM object that may be a slice."""

    path: str
    """Absolute path, or the name of the member inside the archive."""
    size_bytes: int
    """Bytes on disk; inside an archive, compressed."""
    header: Header
    """What its header says; of a frame, as if it were a file of its own."""
    frame: int = 0
    """Number of the frame in a multi-frame object, from 1; 0 for an object of one slice."""

    @property
    def name(self) -> str:
        """The file name without folders, and the frame."""
        name = os.path.basename(self.path)
        return f"{name} frame {self.frame}" if self.frame else name


@dataclass(frozen=True, kw_only=True)
class Series:
    """The slices of one series, not sorted yet."""

    slices: tuple[SliceFile, ...]
    """One or more, sorted by path."""
    archive: str | None = None
    """The zip archive that holds them."""
    notes: tuple[str, ...] = ()
    """What was left out of it, for the report."""

    def _first(self, keyword: str) -> str:
        return self.slices[0].header.get(keyword)

    @property
    def uid(self) -> str:
        """SeriesInstanceUID; empty where it was removed."""
        return self._first("SeriesInstanceUID")

    @property
    def number(self) -> str:
        """SeriesNumber, as text."""
        return self._first("SeriesNumber")

    @property
    def description(self) -> str:
        """SeriesDescription."""
        return self._first("SeriesDescription")

    @property
    def label(self) -> str:
        """Number, description and count of files, for messages."""
        unit = "frame" if self.slices[0].frame else "file"
        count = counted(len(self.slices), unit)
        number = f"series {self.number}" if self.number else "series without number"
        return ", ".join(part for part in (number, self.description, count) if part)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum({slice_.path: slice_.size_bytes for slice_ in self.slices}.values())


@dataclass(kw_only=True)
class FoundSeries:
    """What a set of files contains."""

    series: list[Series] = field(default_factory=list)
    """Sorted by number, then UID."""
    ignored: Counter[str] = field(default_factory=Counter)
    """How many DICOM objects are not slices, by what they are."""
    broken: dict[str, str] = field(default_factory=dict)
    """Why the headers of these DICOM files cannot be read."""
    others: list[str] = field(default_factory=list)
    """Files that are not DICOM."""


def find_series(files: Iterable[Path]) -> FoundSeries:
    """Read the headers of files and group the slices among them; pixels are not read.

    Args:
        files: Of one folder, or of several that belong together.
    """
    found, slices = FoundSeries(), []
    with quiet_libraries():
        for path in files:
            try:
                size = path.stat().st_size
                with path.open("rb") as stream:
                    slices += _read_slice(found, stream, str(path), size)
            except OSError as err:
                found.broken[str(path)] = f"cannot be opened: {err.strerror or err}"
    found.series = _group(slices, found.ignored, None)
    return found


def find_series_in_archive(path: Path, members: Sequence[zipfile.ZipInfo]) -> FoundSeries:
    """As `find_series`, for the members of a zip archive that `check_archive` accepted."""
    found, slices = FoundSeries(), []
    with zipfile.ZipFile(path) as archive, quiet_libraries():
        for member in members:
            parts = member.filename.split("/")
            if parts[-1].startswith(".") or "__MACOSX" in parts:
                found.ignored["hidden file"] += 1
                continue
            try:
                with archive.open(member) as stream:
                    slices += _read_slice(
                        found, stream, member.filename, member.file_size, member.compress_size
                    )
            except (OSError, zipfile.LargeZipFile, *DAMAGED) as err:
                found.broken[member.filename] = f"cannot be unpacked: {err!s:.200}"
    found.series = _group(slices, found.ignored, str(path))
    return found


def _read_slice(
    found: FoundSeries, stream: IO[bytes], path: str, size: int, stored_size: int | None = None
) -> list[SliceFile]:
    """The file as a slice; everything else is noted in `found`."""
    ending = Path(path).suffix.lower()
    head = stream.read(132)
    if not looks_like_dicom(head, dicom_name=ending in _DICOM_ENDINGS):
        if ending in _DICOM_ENDINGS[1:]:
            found.broken[path] = "is called DICOM and is not" + (" (empty)" if not head else "")
        else:
            found.others.append(path)
        return []
    stream.seek(0)
    try:
        header = read_header(stream, size)
        kind = not_a_slice(header)
        frames = read_frames(stream, header) if kind is None and is_multi_frame(header) else []
    except BrokenDicomError as err:
        found.broken[path] = str(err)
        return []
    if kind is not None:
        found.ignored[kind] += 1
        return []
    size = stored_size or size
    if frames:
        return [
            SliceFile(path=path, size_bytes=size, header=frame, frame=number)
            for number, frame in enumerate(frames, 1)
        ]
    return [SliceFile(path=path, size_bytes=size, header=header)]


def _group(slices: Iterable[SliceFile], ignored: Counter[str], archive: str | None) -> list[Series]:
    """By SeriesInstanceUID; where it was removed, by what else identifies a series."""
    substitutes = ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber", "SeriesDescription")
    groups: dict[tuple[str, ...], list[SliceFile]] = defaultdict(list)
    for slice_ in slices:
        uid = slice_.header.get("SeriesInstanceUID")
        key = (uid,) if uid else ("", *(slice_.header.get(name) for name in substitutes))
        if slice_.frame:  # each multi-frame object holds whole volumes
            key = (*key, slice_.path)
        groups[key].append(slice_)
    result = []
    for members in groups.values():
        series = Series(
            slices=tuple(sorted(members, key=lambda s: (s.path, s.frame))), archive=archive
        )
        orientations = (s.header.get("ImageOrientationPatient") for s in series.slices)
        if is_localizer(series.description, orientations):
            ignored["DICOM localizer"] += len(series.slices)
        else:
            result.append(series)
    return sorted(result, key=_sort_key)


def _sort_key(series: Series) -> tuple[int, str, str]:
    digits = series.number if series.number.isdecimal() else "0"
    return int(digits), series.uid, series.slices[0].path
