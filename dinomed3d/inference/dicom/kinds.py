"""Which DICOM objects are slices of a volume, and what the others are called."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dinomed3d.inference.dicom import tags

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NO_SLICE = {
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
    _STORAGE + "104": "enclosed document",
    _STORAGE + "481.2": "radiotherapy dose",
    _STORAGE + "481.3": "radiotherapy structure set",
    _STORAGE + "481.5": "radiotherapy plan",
    _STORAGE + "481": "radiotherapy object",
    "1.3.12.2.1107.5.9.1": "raw data of the manufacturer",
}
"""SOP class, or what it starts with -> what it is; more special ones win."""
_BY_MODALITY = {
    "SEG": "segmentation",
    "SR": "structured report",
    "PR": "presentation state",
    "KO": "key object selection",
    "REG": "registration or raw data",
    "RTSTRUCT": "radiotherapy structure set",
    "RTPLAN": "radiotherapy plan",
    "RTDOSE": "radiotherapy dose",
    "DOC": "enclosed document",
}
_SCREENSHOT = _STORAGE + "7"
_IMAGES = {"2", "4", "7", "20", "128", "130"}  # CT, MR, captures, nuclear medicine, PET
_LOCALIZER = re.compile(
    r"locali[sz]er|\bscouts?\b|topogram|surview|\bsurvey\b|3[ -]?plane", re.IGNORECASE
)


def no_slice(found: tags.Tags) -> str | None:
    """What an object is that cannot be a slice of a volume; None where it can be one."""
    sop_class = found.get(tags.SOP_CLASS) or found.get(tags.META_SOP_CLASS)
    words = sop_class.split(".")
    for length in range(len(words), 0, -1):
        kind = _NO_SLICE.get(".".join(words[:length]))
        if kind is not None:
            return f"DICOM {kind}"
    modality = found.get(tags.MODALITY)
    if not sop_class and modality in _BY_MODALITY:
        return f"DICOM {_BY_MODALITY[modality]}"
    placed = bool(found.get(tags.POSITION))
    if f"{sop_class}.".startswith(f"{_SCREENSHOT}.") and not placed:
        return "DICOM secondary capture (screenshot)"
    if "LOCALIZER" in found.get(tags.IMAGE_TYPE).upper().split("\\"):
        return "DICOM localizer"
    imaging = sop_class.removeprefix(_STORAGE).split(".")[0] in _IMAGES
    if not found.has_pixels and not found.get(tags.ROWS) and not imaging:  # else it is cut off
        return "DICOM object without image"
    return None


def is_localizer(description: str, orientations: Iterable[str]) -> bool:
    """Whether a series is called so and has slices in clearly different orientations.

    Args:
        description: Of the series.
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
