"""Small DICOM series on disk, right or wrong in one way, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

Change = Callable[[Dataset, int], None]


def write_series(
    folder: Path,
    *,
    slices: int = 4,
    shape: tuple[int, int] = (5, 6),
    spacing: tuple[float, float, float] = (2.0, 0.8, 0.7),
    cosines: Sequence[float] = (1, 0, 0, 0, 1, 0),
    origin: Sequence[float] = (-10.0, 20.0, 30.0),
    number: int = 3,
    description: str = "axial",
    uid: str | None = None,
    name: Callable[[int], str] = lambda z: f"{7 * (z + 2) % 11}.dcm",
    change: Change = lambda dataset, z: None,
    syntax: str = ExplicitVRLittleEndian,
) -> np.ndarray:
    """Write CT slices whose names are not in the order of their positions.

    Args:
        folder: Made if it is not there.
        slices: How many.
        shape: (Y, X).
        spacing: (z, y, x), mm.
        cosines: ImageOrientationPatient.
        origin: Of slice 0, LPS, mm.
        number: SeriesNumber.
        description: SeriesDescription.
        uid: SeriesInstanceUID; a new one if None.
        name: z -> file name.
        change: Called with each dataset and its z before it is written.
        syntax: Transfer syntax.

    Returns:
        (Z, Y, X) Hounsfield units, int16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = np.arange(slices * shape[0] * shape[1], dtype=np.uint16).reshape(slices, *shape)
    normal = np.cross(cosines[:3], cosines[3:])
    uid = generate_uid() if uid is None else uid
    for z in range(slices):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.Modality = "CT"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.PatientID = "nobody"
        dataset.StudyInstanceUID = "1.2.3"
        dataset.SeriesInstanceUID = uid
        dataset.SeriesNumber = number
        dataset.SeriesDescription = description
        dataset.InstanceNumber = slices - z  # against the positions, as some scanners do
        dataset.ImagePositionPatient = [
            round(float(v), 6) for v in np.add(origin, z * spacing[0] * normal)
        ]
        dataset.ImageOrientationPatient = [float(v) for v in cosines]
        dataset.PixelSpacing = list(spacing[1:])
        dataset.SliceThickness = spacing[0]
        dataset.Rows, dataset.Columns = shape
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation = 0
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.PixelData = stored[z].tobytes()
        change(dataset, z)
        dataset.save_as(folder / name(z), enforce_file_format=True)
    return stored.astype(np.int16) - 1024


def write_object(folder: Path, name: str, **elements: Any) -> None:
    """One DICOM object without an image: a report, a segmentation, a structure set."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for key, value in elements.items():
        setattr(dataset, key, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.save_as(folder / name, enforce_file_format=True)
