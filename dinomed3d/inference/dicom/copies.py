"""Copies among the DICOM files of one place, found by their UIDs, headers and pixels."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import IO

from dinomed3d.inference.dicom.series import Series, SliceFile
from dinomed3d.runtime.files.safe_zip import DAMAGED
from dinomed3d.runtime.messages.counted import counted

_BLOCK = 2**20


def without_copies(series: Series) -> tuple[tuple[SliceFile, ...], str]:
    """The slices of a series without repeated ones, and a note; frames of one object are left as they are."""
    by_uid: dict[str, list[SliceFile]] = defaultdict(list)
    for one in series.slices:
        by_uid[one.header.get("SOPInstanceUID")].append(one)
    dropped: list[SliceFile] = []
    for uid, same in by_uid.items():
        if not uid or len(same) < 2 or same[0].frame:
            continue
        kept: list[tuple[dict[str, str], str]] = []
        for one in same:
            content = (_header(one), _pixel_digest(series, one))
            if content in kept:
                dropped.append(one)
            else:
                kept.append(content)
    if not dropped:
        return series.slices, ""
    left = tuple(one for one in series.slices if one not in dropped)
    return left, _note([one.name for one in dropped], "another slice")


def without_copied_objects(several: Sequence[Series]) -> list[Series]:
    """The series of one place without copies of multi-frame objects; the ones that stay have a note.

    Args:
        several: each multi-frame object among them is a series of its own.
    """
    kept: list[Series] = []
    copies: dict[int, list[str]] = defaultdict(list)
    for series in several:
        place = next((i for i, other in enumerate(kept) if _same_object(series, other)), None)
        if place is None:
            kept.append(series)
        else:
            copies[place].append(os.path.basename(series.slices[0].path))
    for place, names in copies.items():
        note = _note(names, "another multi-frame file")
        kept[place] = replace(kept[place], notes=(*kept[place].notes, note))
    return kept


def _same_object(series: Series, other: Series) -> bool:
    """Whether two multi-frame objects have one SOPInstanceUID, equal frames and equal pixel bytes."""
    first, its_first = series.slices[0], other.slices[0]
    uid = first.header.get("SOPInstanceUID")
    return bool(
        uid
        and first.frame
        and its_first.frame
        and uid == its_first.header.get("SOPInstanceUID")
        and list(map(_header, series.slices)) == list(map(_header, other.slices))
        and _pixel_digest(series, first) == _pixel_digest(other, its_first)
    )


def _header(one: SliceFile) -> dict[str, str]:
    """What copies have in common; some exports number them on."""
    return {k: v for k, v in one.header.values.items() if k != "InstanceNumber"}


def _note(names: Sequence[str], what: str) -> str:
    """Which files were left out."""
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{counted(len(names), 'file')} left out, with the same UID, header and pixels as {what}: {shown}"


def _pixel_digest(series: Series, one: SliceFile) -> str:
    """SHA-256 of the bytes from the pixel data on; of a file that cannot be read, one of its own."""
    digest = hashlib.sha256()
    try:
        with ExitStack() as stack_:
            stream: IO[bytes]
            if series.archive is None:
                stream = stack_.enter_context(open(one.path, "rb"))
            else:
                archive = stack_.enter_context(zipfile.ZipFile(series.archive))
                stream = stack_.enter_context(archive.open(one.path))
            stream.seek(one.header.pixels_at)
            while block := stream.read(_BLOCK):
                digest.update(block)
    except (OSError, *DAMAGED):
        return f"unreadable {one.path}"
    return digest.hexdigest()
