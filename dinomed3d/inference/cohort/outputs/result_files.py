"""Names of the files that a run writes: for each case, and of the run itself."""

from __future__ import annotations

import re
from pathlib import Path

from dinomed3d.inference.io.image import MASK_ENDINGS
from dinomed3d.inference.report.anonymous import TABLE_FILE

SEG_ENDING = ".seg.dcm"
"""Ending of a DICOM segmentation."""

RTSTRUCT_ENDING = ".rtstruct.dcm"
"""Ending of an RT structure set."""

SLICES_ENDING = ".slices.nii.gz"
"""Ending of the mask of the original slices of a scan with two slice increments."""

OTHER_ENDINGS = (
    ".png",
    ".preview.png",
    ".b2nd",
    ".npz",
    ".pkl",
    SEG_ENDING,
    RTSTRUCT_ENDING,
    SLICES_ENDING,
)
"""Endings of the other files that a case may have next to its record."""

LABELS_FOLDER = ".labels"
"""Ending of the folder of a case with a binary mask for each label."""

EDITED, EARLIER = "edited", "earlier"
"""Words, with a number, in the names of masks that were kept when another one took their place: corrected by hand,
or of a run before."""

COLOUR_TABLE = "labels.ctbl"
"""Names and colours of the labels, for 3D Slicer."""

SUMMARY = "run.json"
"""The summary of a run, which also names the cases that have no record of their own."""

REPORTS = (SUMMARY, "report.html", "report.csv", "statistics.json", TABLE_FILE, COLOUR_TABLE)
"""Files that a run writes in addition to those of its cases."""


def case_of_extra(name: str) -> str | None:
    """The case of a file that a run writes next to a mask: single labels, original slices, masks kept apart.

    Args:
        name: of the file, without its ending.

    Returns:
        None for other names.
    """
    extras = rf"{re.escape(LABELS_FOLDER)}/[^/]+|\.slices|(\.slices)?\.({EDITED}|{EARLIER})\d+"
    found = re.fullmatch(rf"(.+?)({extras})", name)
    return None if found is None else found[1]


def record_path(out: Path, case: str) -> Path:
    """The path of the record of a case."""
    return out / f"{case}.json"


def files_of(case: str, out: Path) -> list[Path]:
    """Paths of all files that a run writes for a case."""
    return [
        out / f"{case}{ending}"
        for ending in dict.fromkeys((".json", *MASK_ENDINGS, *OTHER_ENDINGS))
    ]
