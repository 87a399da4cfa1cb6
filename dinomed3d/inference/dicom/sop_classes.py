"""Which DICOM objects are slices of a volume, and what the others are called."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dinomed3d.inference.dicom.header import Header

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NOT_A_SLICE = {
    "1.2.840.10008.1.3.10": "DICOMDIR",
    _STORAGE + "1": "X-ray image",  # with digital, mammography, intra-oral below it
    _STORAGE + "3": "ultrasound",
    _STORAGE + "6": "ultrasound",
    _STORAGE + "12": "X-ray angiography or fluoroscopy",
    _STORAGE + "4.2": "spectroscopy",
    _STORAGE + "9": "waveform",
    _STORAGE + "11": "presentation state",
    _STORAGE + "30": "parametric map",
    _STORAGE + "66.4": "segmentation",
    _STORAGE + "66.5": "surface segmentation",
    _STORAGE + "66": "registration or raw data",
    _STORAGE + "67": "real world value mapping",
    _STORAGE + "77.1": "photograph or microscopy",
    _STORAGE + "88.59": "key object selection",
    _STORAGE + "88": "structured report",
    _STORAGE + "104": "encapsulated document",
    _STORAGE + "481.2": "radiotherapy dose",
    _STORAGE + "481.3": "radiotherapy structure set",
    _STORAGE + "481.5": "radiotherapy plan",
    _STORAGE + "481": "radiotherapy object",
    "1.3.12.2.1107.5.9.1": "raw data of the manufacturer",
}
"""SOP class UID, or its first components -> what it is; the longest match counts."""
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
    for length in range(len(components), 0, -1):
        kind = _NOT_A_SLICE.get(".".join(components[:length]))
        if kind is not None:
            return f"DICOM {kind}"
    captured = f"{sop_class}.".startswith(f"{_SECONDARY_CAPTURE}.")
    if captured and not header.get("ImagePositionPatient"):
        return "DICOM secondary capture (screenshot)"
    if "LOCALIZER" in header.get("ImageType").upper().split("\\"):
        return "DICOM localizer"
    imaging = sop_class.removeprefix(_STORAGE).split(".")[0] in _IMAGES
    if not header.pixels_at and not header.get("Rows") and not imaging:  # else it is cut off
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
