"""What DICOM objects made of a mask have in common: identifiers, dates, text, and how errors are said."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom.quiet import quiet_libraries
from dinomed3d.inference.dicom.references import series_path
from dinomed3d.runtime.errors import UserError

NOT_REVIEWED = "Automatic segmentation, not reviewed; not a medical device"
"""Description of every object."""


def derived_uid(*parts: object) -> str:
    """A UID derived from the parts, under 2.25: DICOM allows UUIDs there without registration."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '|'.join(map(str, parts))).int}"


def source_date(header: Any) -> str:
    """The date of the source: an object that is made again is the same, byte by byte."""
    return _first_of(header, "Date") or "19000101"


def source_time(header: Any) -> str:
    """The time of the source."""
    return _first_of(header, "Time") or "000000"


def _first_of(header: Any, kind: str) -> str:
    moments = ("Content", "Acquisition", "Series", "Study")
    return next((str(v) for m in moments if (v := header.get(f"{m}{kind}"))), "")


def series_number(header: Any, start: int) -> int:
    """Number of a series that is made of another one, from `start` on."""
    return start + max(0, int(header.get("SeriesNumber") or 0)) % 1_000_000


def character_set(header: Any, *texts: str) -> Any:
    """The character set of the source, or Unicode where a text of ours needs it."""
    return header.get("SpecificCharacterSet") if "".join(texts).isascii() else "ISO_IR 192"


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
