"""From files on disk to scans: images, DICOM series and zips of them, each with a place and a name."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dinomed3d.inference.case import CaseError, RejectedInput, Scan
from dinomed3d.inference.dicom.copies import without_copied_objects
from dinomed3d.inference.dicom.series import (
    FoundSeries,
    Series,
    find_series,
    find_series_in_archive,
)
from dinomed3d.inference.dicom.volume import series_scan
from dinomed3d.inference.dicom.volumes_of_series import SeriesVolume, volumes_of_series
from dinomed3d.inference.discovery.case_ids import case_id
from dinomed3d.inference.discovery.other_formats import VOXEL_ENDINGS, refuse_format, unread_format
from dinomed3d.inference.discovery.walk import Entry
from dinomed3d.inference.io import pictures
from dinomed3d.inference.io.image import MASK_ENDINGS, SCAN_ENDINGS
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.counted import counted

_UNREADABLE = "unreadable-dicom"


@dataclass(frozen=True, kw_only=True)
class FoundScan:
    """One scan in the input, before it is decided which case and channel it is."""

    folder: tuple[str, ...]
    """Folders below the input."""
    stem: str
    """Name without ending; of a DICOM series alone in its folder, that folder's."""
    names: tuple[str, ...]
    """What patterns are compared with: file name, stem; DICOM: folder's name, description."""
    scan: Scan
    """The files and their format."""
    problem: str = ""
    """Why it cannot be read, where that is known already."""
    size_bytes: int = 0
    """Bytes on disk."""
    notes: tuple[str, ...] = ()
    """What was decided for the user, for the report."""

    @property
    def is_dicom(self) -> bool:
        """Whether it is a DICOM series: its name does not number a channel."""
        return self.scan.ending == ".dcm"

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders and stem."""
        return (*self.folder, self.stem)

    @property
    def label(self) -> str:
        """For messages: the file name, or number and description of the series."""
        return self.scan.series or self.names[0]

    @property
    def files(self) -> tuple[str, ...]:
        """Its files on disk."""
        return (self.scan.archive,) if self.scan.archive else self.scan.files


@dataclass(kw_only=True)
class Inventory:
    """Everything below the input."""

    scans: list[FoundScan] = field(default_factory=list)
    """What can be predicted, or has the form of it."""
    rejected: list[RejectedInput] = field(default_factory=list)
    """Broken files and archives."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Path below the input -> why this image is no scan."""
    ignored: Counter[str] = field(default_factory=Counter)
    """How many files are no scans, by the reason."""
    series_in: dict[tuple[str, frozenset[str]], str] = field(default_factory=dict)
    """SeriesInstanceUID and SOPInstanceUIDs of each DICOM series -> where it lies."""
    reader: str = ""
    """nnU-Net's reader of the model's training images."""

    def image_ending(self, name: str) -> str | None:
        """`.nii.gz` of `A.NII.GZ`; None for a file that is no image that this model can be given."""
        return image_ending(name, (*SCAN_ENDINGS, *pictures.READERS.get(self.reader, ())))


def image_ending(name: str, endings: Sequence[str] = (*SCAN_ENDINGS, *MASK_ENDINGS)) -> str | None:
    """The one of these endings that a name has, whatever its case."""
    low = name.lower()
    return next((e for e in endings if low.endswith(e) and len(low) > len(e)), None)


def image_scan(
    folder: tuple[str, ...], entry: Entry, ending: str, reader: str, entries: Sequence[Entry]
) -> FoundScan:
    """One image file; it is not opened.

    Args:
        folder: Below the input.
        entry: The file.
        ending: Of its name.
        reader: nnU-Net's, of the model.
        entries: All files of the folder.
    """
    stem = entry.name[: -len(ending)]
    reader = reader if ending in pictures.READERS.get(reader, ()) else ""
    files: tuple[str, ...] = (entry.path,)
    if reader == pictures.TIFF_STACK:
        paths = {other.name: other.path for other in entries}
        named = (paths.get(name) for name in pictures.spacing_file(entry.name, ending))
        files += tuple(filter(None, named))[:1]
    elif ending in VOXEL_ENDINGS:
        names = {f"{stem}{voxels}".lower() for voxels in VOXEL_ENDINGS[ending]}
        files += tuple(other.path for other in entries if other.name.lower() in names)
    return FoundScan(
        folder=folder,
        stem=stem,
        names=(entry.name, stem),
        scan=Scan(files=files, ending=ending, reader=reader),
        problem="" if entry.exists else f"{entry.name} is a link to a file that is not there",
        size_bytes=entry.size_bytes,
    )


def add_folder(
    inventory: Inventory, folder: tuple[str, ...], entries: Sequence[Entry], *, name: str
) -> list[Series]:
    """Sort the files of one folder: images and zips become scans, the others may be DICOM.

    Args:
        inventory: Is added to.
        folder: Below the input.
        entries: Its files.
        name: Of the input, for what lies directly in it.

    Returns:
        The DICOM series; `add_series` makes scans of them once all folders are known.
    """
    candidates = []
    for entry in entries:
        ending = inventory.image_ending(entry.name)
        low = entry.name.lower()
        if ending is not None:
            scan = image_scan(folder, entry, ending, inventory.reader, entries)
            inventory.scans.append(scan)
        elif low in ("dicomdir", "dicomdir.dir"):
            inventory.ignored["DICOMDIR"] += 1
        elif not entry.exists:
            inventory.ignored["link to a file that is not there"] += 1
        elif low.endswith(".zip") and not low.endswith(".nii.zip"):
            add_archive(inventory, folder, entry)
        elif ending := unread_format(entry.name):
            reason = refuse_format(entry.name, [other.name for other in entries])
            if reason is None:
                inventory.ignored[f"voxels of a header next to them ({ending})"] += 1
            else:
                inventory.rejected.append(
                    RejectedInput(
                        id=case_id((*folder, entry.name)), reason=reason, files=(entry.path,)
                    )
                )
        else:
            candidates.append(Path(entry.path))
    found = find_series(candidates)
    _add_others(inventory, found, folder or (name,))
    if found.others:
        inventory.ignored["not an image"] += len(found.others)
    return without_copied_objects(found.series)


def _add_others(
    inventory: Inventory, found: FoundSeries, place: tuple[str, ...], archive: str = ""
) -> None:
    """Objects that are not slices are counted, broken files rejected."""
    inventory.ignored.update(found.ignored)
    if not found.broken:
        return
    shown = "; ".join(
        f"{os.path.basename(path)} {why}" for path, why in list(found.broken.items())[:3]
    )
    more = f"; and {len(found.broken) - 3} more" if len(found.broken) > 3 else ""
    inventory.rejected.append(
        RejectedInput(
            id=case_id((*place, _UNREADABLE) if found.series else place),
            reason=f"{counted(len(found.broken), 'DICOM file')} cannot be read (copy again): {shown}{more}",
            files=tuple(f"{archive}/{path}" if archive else path for path in found.broken),
        )
    )


def add_archive(inventory: Inventory, folder: tuple[str, ...], entry: Entry) -> None:
    """The DICOM series inside a zip, each as a scan."""
    from dinomed3d.runtime.files.safe_zip import check_archive

    stem = entry.name[: -len(".zip")]
    place = (*folder, stem)
    try:
        found = find_series_in_archive(Path(entry.path), check_archive(Path(entry.path)))
    except Exception as err:  # whatever an archive does to its readers, it costs itself alone
        known = isinstance(err, (UserError, OSError))
        reason = str(err) if known else f"archive {entry.path}: cannot be read ({err!r})"
        reason = reason.replace("\n", " ")
        rejected = RejectedInput(id=case_id(place), reason=reason, files=(entry.path,))
        inventory.rejected.append(rejected)
        return
    _add_others(inventory, found, place, archive=entry.path)
    if found.series:
        series = without_copied_objects(found.series)
        _add_place(inventory, series, place, (entry.name, stem), bool(found.broken))
    elif not found.broken:
        inventory.ignored["zip without a DICOM series (unpack it if it holds images)"] += 1


def add_series(
    inventory: Inventory, series_of: dict[tuple[str, ...], list[Series]], *, name: str
) -> None:
    """Make scans of all series of the tree: join what is spread over folders, then name.

    Args:
        inventory: Is added to.
        series_of: Folder below the input -> the series directly in it.
        name: Of the input, for a series directly in it.
    """
    remaining = _join_spread_series(inventory, series_of)
    rejected = {one.id for one in inventory.rejected}
    for folder, several in remaining.items():
        place = folder or (name,)
        broken = case_id((*place, _UNREADABLE)) in rejected
        if len(several) > 1:
            place = folder
        _add_place(inventory, several, place, place[-1:], broken)


def _join_spread_series(
    inventory: Inventory, series_of: dict[tuple[str, ...], list[Series]]
) -> dict[tuple[str, ...], list[Series]]:
    """Join a series whose files lie in several folders, if only together they make one grid.

    Some exports fill folders by count. Copies of a series, and different ones that anonymisation
    gave one UID, do not make one grid together and stay where they are. Returns the others.
    """
    places: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for folder, several in series_of.items():
        for series in several:
            if series.uid:
                places[series.uid].append(folder)
    remaining = {folder: list(several) for folder, several in series_of.items()}
    for uid, folders in places.items():
        if len(folders) < 2:
            continue
        pieces = [s for folder in folders for s in series_of[folder] if s.uid == uid]
        whole = Series(slices=tuple(slice_ for piece in pieces for slice_ in piece.slices))
        shown = ", ".join("/".join(folder) or "." for folder in sorted(folders)[:4])
        scan = _series_scan(
            whole,
            tuple(os.path.commonprefix([list(folder) for folder in folders])),
            _series_name(whole, []),
            (whole.description,),
            notes=(f"its files lie in {len(folders)} folders ({shown}) and were put together",),
        )
        if scan.problem:
            continue
        for folder in folders:
            remaining[folder] = [series for series in remaining[folder] if series.uid != uid]
        inventory.scans.append(scan)
    return {folder: several for folder, several in remaining.items() if several}


def _add_place(
    inventory: Inventory,
    several: Sequence[Series],
    place: tuple[str, ...],
    names: tuple[str, ...],
    broken: bool,
) -> None:
    """The series of one folder or zip: an only one is named after it, others by their number."""
    where = "/".join((*place[:-1], *names[:1])) or "."
    for series in several:
        notes = _copied_from(inventory, series, where)
        if len(several) == 1:
            folder, stem = place[:-1], place[-1]
            own = (*names, *filter(None, [series.description]))
        else:
            folder, stem = place, _series_name(series, several)
            own = (series.description or stem,)
            notes += (f"one of {len(several)} DICOM series in the same place: {series.label}",)
        for volume in volumes_of_series(series):
            scan = _volume_scan(volume, folder, stem, own, notes=notes, broken=broken)
            inventory.scans.append(scan)


def _copied_from(inventory: Inventory, series: Series, where: str) -> tuple[str, ...]:
    """A note if a series with the same UIDs was found before; several cases may need the same scan, so both stay."""
    objects = frozenset(slice_.header.get("SOPInstanceUID") for slice_ in series.slices)
    if not series.uid or "" in objects:
        return ()
    first = inventory.series_in.get((series.uid, objects))
    if first is None:
        inventory.series_in[series.uid, objects] = where
        return ()
    return (f"probably a copy: the series in {first} has the same UIDs (series and all images)",)


def _volume_scan(
    volume: SeriesVolume,
    folder: tuple[str, ...],
    stem: str,
    names: tuple[str, ...],
    *,
    notes: tuple[str, ...],
    broken: bool,
) -> FoundScan:
    """One volume of a series, named after the series and, among several, after what separates them."""
    if volume.name:
        stem = f"{stem}_{volume.name}"
        names = (*names, stem)
    notes = (*notes, *volume.notes)
    return _series_scan(volume.series, folder, stem, names, notes=notes, broken=broken)


def _series_name(series: Series, neighbours: Sequence[Series]) -> str:
    """`series-4`; with a hash of the UID where the number is missing or not unique."""
    same_number = sum(other.number == series.number for other in neighbours)
    if series.number and same_number <= 1:
        return f"series-{series.number}"
    identity = series.uid or series.label
    if series.slices[0].frame:  # several multi-frame files of one series
        identity += series.slices[0].name
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return f"series-{series.number}-{digest}" if series.number else f"series-{digest}"


def _series_scan(
    series: Series,
    folder: tuple[str, ...],
    stem: str,
    names: tuple[str, ...],
    *,
    notes: tuple[str, ...] = (),
    broken: bool = False,
) -> FoundScan:
    problem = ""
    try:
        scan = series_scan(series)
    except CaseError as err:
        problem = str(err)
        scan = Scan(
            files=tuple(slice_.path for slice_ in series.slices),
            ending=".dcm",
            archive=series.archive,
            series=series.label,
            uid=series.uid,
        )
    if broken:
        notes += ("other DICOM files there cannot be read, slices at its ends may be missing",)
    return FoundScan(
        folder=folder,
        stem=stem,
        names=names,
        scan=scan,
        problem=problem,
        size_bytes=series.size_bytes,
        notes=notes,
    )
