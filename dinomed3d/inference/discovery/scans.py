"""From files on disk to scans: images, DICOM series and zips of them, each with a place and a name."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dinomed3d.inference.case import CaseError, RejectedInput, Scan
from dinomed3d.inference.dicom.volume import (
    Found,
    Series,
    find_series,
    find_series_in_archive,
    series_scan,
)
from dinomed3d.inference.discovery.case_ids import case_id
from dinomed3d.inference.discovery.walk import Entry
from dinomed3d.runtime.errors import UserError

IMAGE_ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd")
_UNREAD = (
    *(".nhdr", ".mhd", ".raw", ".zraw", ".hdr", ".img", ".img.gz", ".hdr.gz", ".mgz", ".mgh"),
    *(".mnc", ".par", ".rec", ".v", ".gipl", ".gipl.gz", ".nii.bz2", ".nii.zip", ".nii.xz"),
)
"""Images all the same, or parts of them: told apart, so that nobody wonders."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One scan as it lies there, before it is said which case and channel it is."""

    folder: tuple[str, ...]
    """Below the input."""
    stem: str
    """Name without ending; of a DICOM series alone in its folder, that folder's."""
    names: tuple[str, ...]
    """What patterns are compared with: file name, stem; DICOM: folder's name, description."""
    scan: Scan
    problem: str = ""
    """Why it cannot be read, where that is known already."""
    size_bytes: int = 0
    notes: tuple[str, ...] = ()

    @property
    def is_dicom(self) -> bool:
        """A series, whose folder's name says nothing about channels by number."""
        return self.scan.ending == ".dcm"

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders and stem."""
        return (*self.folder, self.stem)

    @property
    def label(self) -> str:
        """For messages: the file name, or the series in words."""
        return self.scan.series or self.names[0]

    @property
    def files(self) -> tuple[str, ...]:
        """On disk."""
        return (self.scan.archive,) if self.scan.archive else self.scan.files


@dataclass(kw_only=True)
class Inventory:
    """Everything below the input."""

    items: list[Item] = field(default_factory=list)
    refusals: list[RejectedInput] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def image_ending(name: str) -> str | None:
    """`.nii.gz` of `A.NII.GZ`; None where it is no image that is read."""
    low = name.lower()
    return next((e for e in IMAGE_ENDINGS if low.endswith(e) and len(low) > len(e)), None)


def image_item(folder: tuple[str, ...], entry: Entry, ending: str) -> Item:
    """One image file; it is not opened."""
    stem = entry.name[: -len(ending)]
    return Item(
        folder=folder,
        stem=stem,
        names=(entry.name, stem),
        scan=Scan(files=(entry.path,), ending=ending),
        problem="" if entry.there else f"{entry.name} is a link to a file that is not there",
        size_bytes=entry.size_bytes,
    )


def add_folder(
    inventory: Inventory, folder: tuple[str, ...], entries: Sequence[Entry], *, name: str
) -> list[Series]:
    """Sort the files of one folder: images and zips become items, the others may be DICOM.

    Args:
        inventory: Is added to.
        folder: Below the input.
        entries: Its files.
        name: Of the input, for what lies directly in it.

    Returns:
        The DICOM series; `add_series` makes items of them once all folders are known.
    """
    candidates = []
    for entry in entries:
        ending = image_ending(entry.name)
        low = entry.name.lower()
        if ending is not None:
            inventory.items.append(image_item(folder, entry, ending))
        elif low in ("dicomdir", "dicomdir.dir"):
            inventory.ignored["DICOMDIR"] += 1
        elif not entry.there:
            inventory.ignored["link to nothing"] += 1
        elif low.endswith(".zip") and not low.endswith(".nii.zip"):
            add_archive(inventory, folder, entry)
        elif unread := next((e for e in _UNREAD if low.endswith(e)), None):
            inventory.ignored[f"format that is not read ({unread})"] += 1
        else:
            candidates.append(Path(entry.path))
    found = find_series(candidates)
    _account(inventory, found, folder or (name,))
    if found.others:
        inventory.ignored["not an image"] += len(found.others)
    return found.series


def _account(inventory: Inventory, found: Found, place: tuple[str, ...]) -> None:
    """What was found beside the series: counted, and what is broken refused."""
    inventory.ignored.update(found.ignored)
    if found.broken:
        names = [path.replace("\\", "/").rsplit("/", 1)[-1] for path in found.broken]
        shown = "; ".join(
            f"{name} {why}"
            for name, why in list(zip(names, found.broken.values(), strict=True))[:3]
        )
        more = f"; and {len(names) - 3} more" if len(names) > 3 else ""
        inventory.refusals.append(
            RejectedInput(
                id=case_id((*place, "unreadable-dicom") if found.series else place),
                reason=f"{len(names)} DICOM file(s) cannot be read, copy them again: {shown}{more}",
                files=tuple(found.broken),
            )
        )


def add_archive(inventory: Inventory, folder: tuple[str, ...], entry: Entry) -> None:
    """The DICOM series inside a zip, each as an item."""
    from dinomed3d.runtime.safe_zip import check_archive

    stem = entry.name[: -len(".zip")]
    try:
        members = check_archive(Path(entry.path))
        found = find_series_in_archive(Path(entry.path), members)
    except (UserError, OSError) as err:
        reason = str(err).replace("\n", " ")
        refusal = RejectedInput(id=case_id((*folder, stem)), reason=reason, files=(entry.path,))
        inventory.refusals.append(refusal)
        return
    _account(inventory, replace_files(found, entry.path), (*folder, stem))
    if not found.series and not found.broken:
        inventory.ignored["zip without a DICOM series (unpack it if it holds images)"] += 1
    elif len(found.series) == 1:
        only = found.series[0]
        names = (entry.name, stem, *filter(None, [only.description]))
        inventory.items.append(_series_item(only, folder, stem, names, broken=bool(found.broken)))
    else:
        _add_several(inventory, found.series, (*folder, stem), broken=bool(found.broken))


def replace_files(found: Found, path: str) -> Found:
    """With broken members named behind their archive."""
    broken = {f"{path}/{member}": why for member, why in found.broken.items()}
    return Found(series=found.series, ignored=found.ignored, broken=broken)


def add_series(
    inventory: Inventory, series_of: dict[tuple[str, ...], list[Series]], *, name: str
) -> None:
    """Make items of all series of the tree: put together what was spread over folders, then name.

    Args:
        inventory: Is added to.
        series_of: Folder below the input -> what lies directly in it.
        name: Of the input, for a series directly in it.
    """
    remaining = _put_together(inventory, series_of)
    unreadable = {refusal.id for refusal in inventory.refusals}
    for folder, several in remaining.items():
        broken = case_id((*(folder or (name,)), "unreadable-dicom")) in unreadable
        if len(several) == 1:
            parent, own = (folder[:-1], folder[-1]) if folder else ((), name)
            names = (own, *filter(None, [several[0].description]))
            inventory.items.append(_series_item(several[0], parent, own, names, broken=broken))
        else:
            _add_several(inventory, several, folder, broken=broken)


def _put_together(
    inventory: Inventory, series_of: dict[tuple[str, ...], list[Series]]
) -> dict[tuple[str, ...], list[Series]]:
    """Series whose files lie in several folders, if only together they are one grid's slices.

    Some exports fill folders by count. Copies of a series, and different ones that anonymisation
    gave one UID, do not make one grid together and stay where they are.
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
        try:
            series_scan(whole)
        except CaseError:
            continue
        for folder in folders:
            remaining[folder] = [series for series in remaining[folder] if series.uid != uid]
        common = os.path.commonprefix([list(folder) for folder in folders])
        shown = ", ".join("/".join(folder) or "." for folder in sorted(folders)[:4])
        note = f"its files lie in {len(folders)} folders ({shown}) and were put together"
        item = _series_item(whole, tuple(common), _series_name(whole, []), (whole.description,))
        inventory.items.append(replace(item, notes=(*item.notes, note)))
    return {folder: several for folder, several in remaining.items() if several}


def _add_several(
    inventory: Inventory, several: Sequence[Series], folder: tuple[str, ...], *, broken: bool
) -> None:
    """Series that lie in one folder or zip, told apart by their number."""
    for series in several:
        note = f"one of {len(several)} DICOM series that lie together: {series.words}"
        names = (series.description,) if series.description else (_series_name(series, several),)
        item = _series_item(series, folder, _series_name(series, several), names, broken=broken)
        inventory.items.append(replace(item, notes=(note, *item.notes)))


def _series_name(series: Series, beside: Sequence[Series]) -> str:
    """`series-4`; with a mark of the UID where the number is missing or not its own."""
    alike = sum(other.number == series.number for other in beside)
    if series.number and alike <= 1:
        return f"series-{series.number}"
    identity = series.uid or series.words
    mark = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return f"series-{series.number}-{mark}" if series.number else f"series-{mark}"


def _series_item(
    series: Series,
    folder: tuple[str, ...],
    stem: str,
    names: tuple[str, ...],
    *,
    broken: bool = False,
) -> Item:
    problem = ""
    try:
        scan = series_scan(series)
    except CaseError as err:
        problem = str(err)
        scan = Scan(
            files=tuple(slice_.path for slice_ in series.slices),
            ending=".dcm",
            archive=series.archive,
            series=series.words,
            uid=series.uid,
        )
    note = "DICOM files beside it cannot be read, slices at its ends may be missing"
    return Item(
        folder=folder,
        stem=stem,
        names=names,
        scan=scan,
        problem=problem,
        size_bytes=series.size_bytes,
        notes=(note,) if broken else (),
    )
