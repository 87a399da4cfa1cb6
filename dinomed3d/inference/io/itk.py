"""MetaImage and NRRD files through SimpleITK, after a check of their text headers."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io.grid import (
    Grid,
    Volume,
    array_shape,
    array_spacing,
    check_spacing,
    checked_affine,
    mask_shape,
)
from dinomed3d.inference.io.itk_header import (
    HeaderText,
    add_unit,
    check_data,
    read_header,
    unit_of,
)
from dinomed3d.inference.io.label_table import LabelValues, slicer_segments
from dinomed3d.inference.io.other_scans import as_nifti
from dinomed3d.inference.io.voxels import checked_volume
from dinomed3d.inference.patient_axes import LPS_TO_RAS

_READERS = {
    **{".mha": "MetaImageIO", ".nrrd": "NrrdImageIO"},
    **{".mhd": "MetaImageIO", ".nhdr": "NrrdImageIO"},
}
DETACHED = (".mhd", ".nhdr")
"""Headers whose voxels are in a file next to them; their masks are NIfTI."""


def read_grid(path: Path, ending: str, *, channels: int = 1) -> Grid:
    """As `nifti.read_grid`, for `.mha` and `.nrrd`."""
    text, reader = _opened(path, ending)
    return _grid(text, reader, ending, channels)[0]


def read(path: Path, ending: str, *, channels: int = 1) -> Volume:
    """As `nifti.read`, for `.mha` and `.nrrd`."""
    text, reader = _opened(path, ending)
    grid, notes = _grid(text, reader, ending, channels)
    if ending in (".nrrd", ".nhdr") and not text.get("space"):
        notes.insert(0, "its header names no space; axes are taken as left, posterior, superior")
    bits = sitk.GetPixelIDValueAsString(reader.GetPixelID()).partition("-bit")[0]
    check_data(text, reader.GetSize(), int(bits) // 8)
    try:
        image = reader.Execute()
    except RuntimeError as err:
        raise CaseError(f"{path}: is cut off or damaged: {_reason(err)}") from err
    volumes = []
    for channel in np.asarray(_Voxels(image)).reshape(channels, *grid.shape_zyx):
        voxels, more = checked_volume(channel, str(path))
        volumes.append(voxels)
        notes += more
    return Volume(channels=volumes, grid=grid, notes=notes)


def write(mask: NDArray[Any], grid: Grid, path: Path, labels: LabelValues | None = None) -> None:
    """As `nifti.write`, for `.mha`, which has no names of values, and `.nrrd`.

    Raises:
        CaseError: The format cannot store the geometry.
        OSError: It cannot be written.
    """
    assert grid.header is not None
    geometry = json.loads(base64.b64decode(grid.header))
    image = sitk.GetImageFromArray(mask.reshape(grid.stored_shape[::-1]), isVector=False)
    image.SetSpacing(geometry["spacing"])
    image.SetOrigin(geometry["origin"])
    image.SetDirection(geometry["direction"])
    if labels and grid.ending == ".nrrd" and len(grid.stored_shape) == 3:
        for key, text in slicer_segments(labels, grid.stored_shape).items():
            image.SetMetaData(key, text)
    try:
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
    except RuntimeError as err:
        raise OSError(f"{path}: cannot be written: {_reason(err)}") from err
    if geometry["unit"]:
        add_unit(path, grid.ending, geometry["unit"])
    if not np.allclose(read_grid(path, grid.ending).matrix, grid.matrix, rtol=1e-9, atol=1e-6):
        raise CaseError(
            f"{path}: {grid.ending} cannot store this geometry (axes not at right angles?); "
            "convert the scan to NIfTI"
        )


class _Voxels:
    """An image's voxels for numpy, without a copy, that keep the image alive."""

    def __init__(self, image: sitk.Image) -> None:
        self.image = image
        view = sitk.GetArrayViewFromImage(image)
        address = view.__array_interface__["data"][0]
        self.__array_interface__ = {**view.__array_interface__, "data": (address, False)}


def _opened(path: Path, ending: str) -> tuple[HeaderText, sitk.ImageFileReader]:
    """The checked text header, and a reader that has read its information."""
    text = read_header(path, ending)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[ending])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as err:
        raise CaseError(f"{path}: its header cannot be read: {_reason(err)}") from err
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if reader.GetNumberOfComponents() > 1 or "complex" in kind:
        raise CaseError(
            f"{path}: must hold one number per voxel, it holds {reader.GetNumberOfComponents()} "
            f"({kind}: colour, a list or a vector); save the volume to segment alone"
        )
    return text, reader


def _grid(
    text: HeaderText, reader: sitk.ImageFileReader, ending: str, channels: int
) -> tuple[Grid, list[str]]:
    name = str(text.path)
    stored = mask_shape(tuple(reader.GetSize()), name, channels=channels)
    axes = reader.GetDimension()
    spacing, origin = reader.GetSpacing(), reader.GetOrigin()
    direction = np.array(reader.GetDirection()).reshape(axes, axes)
    if axes > 4 or (axes == 4 and (direction[3, :3].any() or direction[:3, 3].any())):
        raise CaseError(f"{name}: must be an image in space, its {axes} axes are mixed; save it 3D")
    if len(stored) < axes:  # the mask has no axis of channels
        axes, spacing, origin, direction = 3, spacing[:3], origin[:3], direction[:3, :3]
    check_spacing(spacing[:3], name)
    n = min(axes, 3)
    unit, unit_mm = unit_of(text)
    spacing_mm = tuple(unit_mm * length for length in spacing[:3])
    affine = np.eye(4)
    affine[:n, :n] = direction[:n, :n] * spacing_mm[:n]
    affine[:n, 3] = np.multiply(origin[:n], unit_mm)
    rows, notes = checked_affine(LPS_TO_RAS @ affine, spacing_mm, name)
    if unit_mm != 1:
        notes.append(
            f"its header's unit is {unit}: its voxels are {min(spacing_mm):g} mm at the least"
        )
    if ending in DETACHED:
        mask_grid, more = as_nifti(stored, np.array(rows), spacing_mm, name)
        return mask_grid, list(dict.fromkeys([*notes, *more]))
    geometry = {
        "unit": unit,
        "spacing": list(spacing),
        "origin": list(origin),
        "direction": direction.ravel().tolist(),
    }
    grid = Grid(
        shape_zyx=array_shape(stored),
        spacing_mm=array_spacing(spacing_mm),
        affine=rows,
        stored_shape=stored,
        ending=ending,
        header=base64.b64encode(json.dumps(geometry).encode()).decode("ascii"),
    )
    return grid, notes


def _reason(err: RuntimeError) -> str:
    """The last informative line of ITK's message, without addresses."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Reason: No such file")] or lines
    return re.sub(r"^ITK ERROR: |\w+\(0x[0-9a-f]+\): ", "", lines[-1])
