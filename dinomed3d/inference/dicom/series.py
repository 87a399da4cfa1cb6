"""Which DICOM files belong together: series, told apart by the heads of their files."""

from __future__ import annotations

import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from dinomed3d.inference.dicom import tags
from dinomed3d.inference.dicom.kinds import is_localizer, no_slice
from dinomed3d.runtime.safe_zip import DAMAGED

DICOM_ENDINGS = ("", ".dcm", ".dicom", ".dic", ".ima")
"""Names that speak for DICOM; files with the magic word count whatever they are called."""


@dataclass(frozen=True, kw_only=True)
class SliceFile:
    """One DICOM object that may be a slice."""

    path: str
    """Absolute, or of the member inside the archive."""
    size_bytes: int
    """On disk: compressed, inside an archive."""
    tags: tags.Tags

    @property
    def name(self) -> str:
        """Of the file alone."""
        return self.path.replace("\\", "/").rsplit("/", 1)[-1]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Objects that belong together, in no order yet."""

    slices: tuple[SliceFile, ...]
    archive: str | None = None

    @property
    def uid(self) -> str:
        """SeriesInstanceUID; empty where someone removed it."""
        return self.slices[0].tags.get(tags.SERIES_UID)

    @property
    def number(self) -> str:
        """SeriesNumber, as text."""
        return self.slices[0].tags.get(tags.SERIES_NUMBER)

    @property
    def description(self) -> str:
        """SeriesDescription."""
        return self.slices[0].tags.get(tags.SERIES_DESCRIPTION)

    @property
    def words(self) -> str:
        """Number, description, files."""
        count = f"{len(self.slices)} file" + ("s" if len(self.slices) > 1 else "")
        number = f"series {self.number}" if self.number else "series without number"
        return ", ".join(part for part in (number, self.description, count) if part)

    @property
    def size_bytes(self) -> int:
        """On disk."""
        return sum(slice_.size_bytes for slice_ in self.slices)


@dataclass(kw_only=True)
class Found:
    """What a set of files holds."""

    series: list[Series] = field(default_factory=list)
    """By number, then UID."""
    ignored: Counter[str] = field(default_factory=Counter)
    """DICOM objects that are no slices: kind -> how many."""
    broken: dict[str, str] = field(default_factory=dict)
    """Files that nobody can say which series they belong to -> why."""
    others: list[str] = field(default_factory=list)
    """Files that are not DICOM."""


def find_series(files: Iterable[Path]) -> Found:
    """Read the heads of files and group the slices among them; pixels are not touched.

    Args:
        files: Of one folder, or of several that belong together.
    """
    found, slices = Found(), []
    for path in files:
        try:
            size = path.stat().st_size
            with path.open("rb") as stream:
                named_so = path.suffix.lower() in DICOM_ENDINGS
                slice_ = _look(found, stream, str(path), size, named_so=named_so)
        except OSError as err:
            found.broken[str(path)] = f"cannot be opened: {err.strerror or err}"
            continue
        if slice_ is not None:
            slices.append(slice_)
    found.series = _group(slices, found.ignored, None)
    return found


def find_series_in_archive(path: Path, members: Sequence[zipfile.ZipInfo]) -> Found:
    """As `find_series`, inside a zip that `archive.check_archive` found in order."""
    found, slices = Found(), []
    with zipfile.ZipFile(path) as archive:
        for member in members:
            name = member.filename.rsplit("/", 1)[-1]
            if name.startswith(".") or "__MACOSX" in member.filename.split("/"):
                found.ignored["hidden file"] += 1
                continue
            named_so = Path(name).suffix.lower() in DICOM_ENDINGS
            try:
                with archive.open(member) as stream:
                    slice_ = _look(
                        found, stream, member.filename, member.file_size, named_so=named_so
                    )
            except (OSError, zipfile.LargeZipFile, *DAMAGED) as err:
                found.broken[member.filename] = f"cannot be unpacked: {err}"
            else:
                if slice_ is not None:
                    slices.append(_with_size(slice_, member.compress_size))
    found.series = _group(slices, found.ignored, str(path))
    return found


def _with_size(slice_: SliceFile, size: int) -> SliceFile:
    return SliceFile(path=slice_.path, size_bytes=size, tags=slice_.tags)


def _look(
    found: Found, stream: IO[bytes], path: str, size: int, *, named_so: bool
) -> SliceFile | None:
    """The file as a slice; what is none goes where `found` keeps it."""
    head = stream.read(132)
    if not tags.looks_like_dicom(head, named_so=named_so):
        if Path(path).suffix.lower() in DICOM_ENDINGS[1:]:
            found.broken[path] = "is called DICOM and is none" + (" (empty)" if not head else "")
        else:
            found.others.append(path)
        return None
    stream.seek(0)
    try:
        content = tags.read_tags(stream, size)
    except tags.BrokenDicomError as err:
        found.broken[path] = str(err)
        return None
    kind = no_slice(content)
    if kind is not None:
        found.ignored[kind] += 1
        return None
    return SliceFile(path=path, size_bytes=size, tags=content)


def _group(slices: Iterable[SliceFile], ignored: Counter[str], archive: str | None) -> list[Series]:
    """By SeriesInstanceUID; where that was removed, by what else names a series."""
    groups: dict[tuple[str, ...], list[SliceFile]] = defaultdict(list)
    for slice_ in slices:
        found = slice_.tags
        key: tuple[str, ...] = (found.get(tags.SERIES_UID),)
        if not key[0]:
            names = (tags.STUDY_UID, tags.FRAME_OF_REFERENCE, tags.SERIES_NUMBER)
            key = ("", *(found.get(name) for name in (*names, tags.SERIES_DESCRIPTION)))
        groups[key].append(slice_)
    result = []
    for members in groups.values():
        series = Series(slices=tuple(sorted(members, key=lambda s: s.path)), archive=archive)
        orientations = (s.tags.get(tags.ORIENTATION) for s in series.slices)
        if is_localizer(series.description, orientations):
            ignored["DICOM localizer"] += len(series.slices)
        else:
            result.append(series)
    return sorted(result, key=_rank)


def _rank(series: Series) -> tuple[int, str, str]:
    digits = series.number if series.number.isdecimal() else "0"
    return int(digits), series.uid, series.slices[0].path
