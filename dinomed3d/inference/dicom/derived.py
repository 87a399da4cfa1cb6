"""What DICOM objects made of a mask have in common: identifiers, dates, text, and how errors are said."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom.quiet import quiet_libraries
from dinomed3d.inference.dicom.references import series_path, valid_date, valid_time
from dinomed3d.runtime.errors import UserError

_PLAIN_SETS = frozenset(
    f"ISO_IR {n}" for n in (100, 101, 109, 110, 126, 127, 138, 144, 148, 166, 192, 203)
)
"""Defined terms of single-byte character sets without code extensions, and Unicode (part 3, C.12.1.1.2)."""


@dataclass(frozen=True, kw_only=True)
class MadeBy:
    """What made a mask."""

    algorithm: str
    """Its name, at most 64 characters."""
    version: str
    """Of the algorithm, at most 64 characters."""
    corrected: datetime | None = None
    """When the mask was corrected by hand, in local time; None: it is the algorithm's."""

    @property
    def description(self) -> str:
        """Describes the object to its readers, at most 64 characters."""
        if self.corrected is None:
            return "Automatic segmentation, not reviewed; not a medical device"
        return "Automatic segmentation, corrected by hand"


def derived_uid(*parts: object) -> str:
    """A UID derived from the parts, under 2.25: DICOM allows UUIDs there without registration."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '|'.join(map(str, parts))).int}"


def made_at(header: Any, made_by: MadeBy) -> tuple[str, str]:
    """Date and time of an object: those of the correction, else of the source.

    An object that is made again of the same mask is the same, byte by byte.

    Args:
        header: of the source.
        made_by: what made the mask.

    Returns:
        DICOM's YYYYMMDD and HHMMSS; the time of a source may have a fraction.
    """
    if made_by.corrected is not None:
        return f"{made_by.corrected:%Y%m%d}", f"{made_by.corrected:%H%M%S}"
    day = _first_of(header, "Date", valid_date) or "19000101"
    return day, _first_of(header, "Time", valid_time) or "000000"


def _first_of(header: Any, kind: str, valid: Callable[[str], str]) -> str:
    """The first value that DICOM allows."""
    moments = ("Content", "Acquisition", "Series", "Study")
    stated = (valid(str(header.get(f"{moment}{kind}") or "")) for moment in moments)
    return next(filter(None, stated), "")


def series_number(header: Any, start: int) -> int:
    """Number of a series that is made of another one, from `start` on."""
    return start + max(0, int(header.get("SeriesNumber") or 0)) % 1_000_000


def character_set(header: Any, *texts: str) -> str | None:
    """The character set of the source where it is a plain one, or Unicode, which holds every text.

    Args:
        header: of the source; what is taken from it is decoded, and encoded again.
        texts: ours.
    """
    stated = header.get("SpecificCharacterSet")
    if "".join(texts).isascii() and (not stated or str(stated) in _PLAIN_SETS):
        return str(stated) if stated else None
    return "ISO_IR 192"


@contextmanager
def library_errors(scan: Scan, what: str) -> Iterator[None]:
    """What pydicom and highdicom raise about a series becomes a CaseError; their warnings go.

    Args:
        scan: the series.
        what: is made of it.
    """
    with quiet_libraries():
        try:
            yield
        except UserError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, NotImplementedError) as err:
            raise CaseError(
                f"{series_path(scan)}: no {what} can be made for this series: "
                f"{' '.join(str(err).split())}; the mask itself is not affected"
            ) from err
