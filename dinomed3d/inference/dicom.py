"""DICOM series: told apart by their headers, put in order by position, read as one volume."""

from __future__ import annotations

import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dinomed3d.errors import UserError
from dinomed3d.inference import dicom_tags as tags
from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom_kinds import is_localizer, no_slice
from dinomed3d.inference.dicom_stack import Stack, plane, stack

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
            except (OSError, EOFError, RuntimeError, NotImplementedError, ValueError) as err:
                found.broken[member.filename] = f"cannot be unpacked: {err}"
            except (zipfile.BadZipFile, zipfile.LargeZipFile) as err:
                found.broken[member.filename] = f"cannot be unpacked: {err}"
            else:
                if slice_ is not None:
                    slices.append(_with_size(slice_, member.compress_size))
    found.series = _group(slices, found.ignored, str(path))
    return found


def _with_size(slice_: SliceFile, size: int) -> SliceFile:
    return SliceFile(path=slice_.path, size_bytes=size, tags=slice_.tags)


def _look(found: Found, stream: Any, path: str, size: int, *, named_so: bool) -> SliceFile | None:
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


def series_scan(series: Series) -> Scan:
    """Put the slices in order by their position, and check that they make one grid.

    Raises:
        CaseError: A file is cut off; as `dicom_stack.stack`.
    """
    for slice_ in series.slices:
        if not slice_.tags.has_pixels or slice_.tags.missing_bytes:
            raise CaseError(
                f"{series.words}: {slice_.name} is cut off within its pixels; copy the series again"
            )
    stacked = _stack(
        [slice_.tags.values for slice_ in series.slices],
        [slice_.name for slice_ in series.slices],
        series.words,
    )
    return Scan(
        files=tuple(series.slices[i].path for i in stacked.order),
        ending=".dcm",
        archive=series.archive,
        series=series.words,
        uid=series.uid,
    )


def _stack(values: Sequence[Mapping[str, str]], names: Sequence[str], words: str) -> Stack:
    try:
        return stack([plane(v, name) for v, name in zip(values, names, strict=True)])
    except CaseError as err:
        raise CaseError(f"{words}: {err}") from err


def read_series(
    scan: Scan,
) -> tuple[NDArray[Any], tuple[float, float, float], NDArray[np.float64], tuple[str, ...]]:
    """Read the voxels of a series and where they lie.

    Args:
        scan: Of `series_scan`. Members of an archive are unpacked to a temporary folder meanwhile.

    Returns:
        (Z, Y, X) with slope and intercept applied, in the smallest of int16, uint16, int32 that
        holds them, or what is stored; float32 where the slope makes fractions. Slice z is
        `scan.files[z]`. Spacing (z, y, x) in mm. (4, 4) affine: voxel (x, y, z) -> mm, RAS+. Notes.

    Raises:
        CaseError: A file is gone, damaged, cut off or changed, or as `series_scan`.
    """
    with _on_disk(scan) as paths, _quiet():
        values = [_whole_tags(path) for path in paths]
        stacked = _stack([v.values for v in values], [path.name for path in paths], scan.series)
        if stacked.order != tuple(range(len(paths))):
            raise CaseError(f"{scan.series}: its files have changed since they were found")
        shape = int(values[0].get(tags.ROWS)), int(values[0].get(tags.COLUMNS))
        volume = np.empty((0, 0, 0), np.uint8)
        for index, path in enumerate(paths):
            pixels = _read_pixels(path)
            if pixels.shape != shape:
                raise CaseError(f"{path.name}: its pixels are {pixels.shape}, not {shape}")
            if index == 0:
                volume = np.empty((len(paths), *shape), pixels.dtype)
            wider = np.promote_types(volume.dtype, pixels.dtype)
            if wider != volume.dtype:
                volume = volume.astype(np.float32 if wider.kind == "f" else wider)
            volume[index] = pixels
    return volume, stacked.spacing_zyx, stacked.affine, stacked.notes


@contextmanager
def _on_disk(scan: Scan) -> Iterator[list[Path]]:
    """The files of a scan as such, for as long as it is read."""
    if scan.archive is None:
        yield [Path(file) for file in scan.files]
        return
    from dinomed3d.inference.archive import extract

    with tempfile.TemporaryDirectory(prefix="dinomed3d-") as folder:
        try:
            paths = extract(Path(scan.archive), scan.files, Path(folder))
        except UserError as err:
            raise CaseError(str(err)) from err
        yield paths


def _whole_tags(path: Path) -> tags.Tags:
    """Its tags, after a look whether the pixels are all there."""
    stream: BinaryIO
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            content = tags.read_tags(stream, size)
            whole = tags.is_whole(stream, size, content)
    except OSError as err:
        raise CaseError(f"{path}: cannot be opened: {err.strerror or err}") from err
    except tags.BrokenDicomError as err:
        raise CaseError(f"{path}: {err}; copy it again") from err
    if not whole:
        raise CaseError(f"{path}: cut off within its pixels; copy it again")
    return content


def _read_pixels(path: Path) -> NDArray[Any]:
    """(Y, X) of one slice, rescaled, in a type that is no wider than needed."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
    except RuntimeError as err:
        last = str(err).strip().splitlines()[-1]
        raise CaseError(
            f"{path}: its pixels cannot be decoded ({last}); convert it to uncompressed DICOM or .nii.gz"
        ) from err
    pixels = sitk.GetArrayFromImage(image)
    if pixels.shape[0] != 1 or pixels.ndim != 3:
        raise CaseError(f"{path}: {pixels.shape} pixels, one slice of one channel is needed")
    return _narrow(pixels[0])


def _narrow(pixels: NDArray[Any]) -> NDArray[Any]:
    """GDCM is generous: CT often comes as int32, and any fraction as float64."""
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)
    for dtype in (np.int16, np.uint16, np.int32):
        limits = np.iinfo(dtype)
        if pixels.dtype.itemsize > limits.dtype.itemsize:
            if limits.min <= pixels.min() and pixels.max() <= limits.max:
                return pixels.astype(dtype)
    return pixels


@contextmanager
def _quiet() -> Iterator[None]:
    """Without ITK's warnings on stderr; errors are raised all the same."""
    import SimpleITK as sitk

    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
