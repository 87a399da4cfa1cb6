"""Slices that are to be shown inverted (MONOCHROME1): their values are read as they are stored.

The photometric interpretation says how values are shown, after the modality's rescaling and the window; Hounsfield
units are the same with either. ITK inverts the stored values of MONOCHROME1 as it reads them, so it is given copies
that say MONOCHROME2.

Source: DICOM PS3.3, C.7.6.3.1.2 (Photometric Interpretation) and C.11.1 (Modality LUT).
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.dicom.header import Header

INVERTED, PLAIN = "MONOCHROME1", "MONOCHROME2"
"""Photometric interpretations: the smallest value is shown white, or black."""
NOTE = (
    "its series says that viewers show it inverted (MONOCHROME1); the values are taken as stored, which DICOM means, "
    "and ITK, SimpleITK and 3D Slicer invert them"
)
"""For the report: a model may have been trained on images that were inverted."""


def is_shown_inverted(header: Header) -> bool:
    """Whether viewers show the smallest value of a slice white."""
    return header.get("PhotometricInterpretation").strip().upper() == INVERTED


@contextmanager
def not_inverted(path: Path) -> Iterator[Path]:
    """A copy of a slice, for as long as it is read, that is not said to be shown inverted.

    Args:
        path: of a file with one slice.

    Raises:
        CaseError: it cannot be read.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    with tempfile.TemporaryDirectory(prefix="dinomed3d-") as folder:
        copy = Path(folder, path.name)
        try:
            dataset = dcmread(path, force=True)
            dataset.PhotometricInterpretation = PLAIN
            dataset.save_as(copy)
        except OSError as err:
            raise CaseError(f"{path}: cannot be opened: {err.strerror or err}") from err
        except (
            *(struct.error, zlib.error, RecursionError, ValueError, NotImplementedError, EOFError),
            *(InvalidDicomError, AttributeError, KeyError, TypeError),
        ) as err:
            raise CaseError(f"{path}: its DICOM header is damaged: {err}; copy it again") from err
        yield copy
