"""Which DICOM objects are slices of a volume, and what the others are called."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydicom.uid import UID

from dinomed3d.inference.dicom.header import Header

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NOT_SLICES = {
    "1.2.840.10008.1.3.10",  # DICOMDIR
    "1.3.12.2.1107.5.9.1",  # raw data of Siemens
    *(_STORAGE + number for number in ("1", "3", "6", "12")),  # X-ray, ultrasound, angiography
    *(_STORAGE + number for number in ("4.2", "30", "66", "67")),  # spectra, maps, raw data
    *(_STORAGE + number for number in ("9", "11", "88", "104", "481")),  # waveforms, reports, RT
    _STORAGE + "77.1",  # photographs, microscopy
}
"""SOP class UIDs, or their first components, of objects that are no slices of a volume."""
_SECONDARY_CAPTURE = _STORAGE + "7"
_IMAGES = {"2", "4", "7", "20", "128", "130"}
"""CT, MR, secondary capture, nuclear medicine, PET, enhanced PET: component after `_STORAGE`."""
_LOCALIZER = re.compile(
    r"locali[sz]er|\bscouts?\b|topogram|surview|\bsurvey\b|3[ -]?plane", re.IGNORECASE
)


def not_a_slice(header: Header) -> str | None:
    """What an object is that cannot be a slice of a volume; None where it can be one."""
    sop_class = header.get("SOPClassUID") or header.get("MediaStorageSOPClassUID")
    components = sop_class.split(".")
    prefixes = {".".join(components[:length]) for length in range(1, len(components) + 1)}
    if prefixes & _NOT_SLICES:
        name = UID(sop_class).name.removesuffix(" Storage")
        return f"DICOM {'raw data' if name == sop_class else name}"
    if _SECONDARY_CAPTURE in prefixes and not header.get("ImagePositionPatient"):
        return "DICOM secondary capture (screenshot)"
    if "LOCALIZER" in header.get("ImageType").upper().split("\\"):
        return "DICOM localizer"
    imaging = sop_class.removeprefix(_STORAGE).split(".")[0] in _IMAGES
    if not header.pixels_at and not header.get("Rows") and not imaging:  # otherwise it is cut off
        return "DICOM object without image"
    return None


def is_localizer(description: str, orientations: Iterable[str]) -> bool:
    """Whether a series is called a localizer and has slices in clearly different orientations.

    Args:
        description: SeriesDescription.
        orientations: ImageOrientationPatient of its slices, as text.
    """
    if _LOCALIZER.search(description) is None:
        return False
    known: list[list[float]] = []
    for text in set(orientations):
        try:
            known.append([float(part) for part in text.split("\\")])
        except ValueError:
            continue
    return any(
        max(abs(a - b) for a, b in zip(cosines, known[0], strict=False)) > 0.1
        for cosines in known[1:]
    )
