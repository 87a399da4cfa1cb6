"""MetaImage and NRRD through SimpleITK; their headers are looked at first for what it makes up."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io import itk_header
from dinomed3d.inference.io.grid import (
    FLAT_SPACING,
    Grid,
    Volume,
    checked_affine,
    checked_spacing,
    decoded,
    encoded,
    file_axes,
    shape_zyx,
)
from dinomed3d.inference.io.voxels import watched

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_READERS = {".mha": "MetaImageIO", ".nrrd": "NrrdImageIO"}


def read_grid(path: Path, ending: str, *, channels: int = 1) -> Grid:
    """The grid of a mask for this file; reads its header alone.

    Raises:
        CaseError: It is not there, not this format, or its header cannot place a mask.
    """
    return _information(path, ending, channels).grid


def read(path: Path, ending: str, *, channels: int = 1) -> Volume:
    """All voxels of a file, and its grid.

    Args:
        path: The file.
        ending: `.mha` or `.nrrd`.
        channels: With more than one the file must be 4D, with so many along its last axis.

    Raises:
        CaseError: As `read_grid`; or it is cut off or damaged, or its values are not finite
            grey values.
    """
    found = _information(path, ending, channels)
    grid, notes = found.grid, found.notes
    itk_header.check_data(found.text, found.voxel_bytes)
    try:
        image = found.reader.Execute()
    except RuntimeError as err:
        raise CaseError(f"{path}: is cut off or damaged: {_said(err)}") from err
    stored = np.asarray(_Held(image)).reshape(channels, *grid.shape_zyx)
    volumes = []
    for channel in stored:
        voxels, more = watched(channel, str(path))
        volumes.append(voxels)
        notes += more
    return Volume(channels=volumes, grid=grid, notes=notes)


def write(mask: NDArray[Any], grid: Grid, path: Path) -> None:
    """A mask with the geometry of its scan.

    Args:
        mask: (Z, Y, X) uint8 or uint16.
        grid: Where it lies.
        path: Is written directly; ends in `grid.ending`.

    Raises:
        CaseError: The format does not give the geometry back.
    """
    assert grid.header is not None
    geometry = json.loads(decoded(grid.header))
    image = sitk.GetImageFromArray(mask.reshape(grid.stored_shape[::-1]), isVector=False)
    image.SetSpacing(geometry["spacing"])
    image.SetOrigin(geometry["origin"])
    image.SetDirection(geometry["direction"])
    try:
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
    except RuntimeError as err:
        raise OSError(f"{path}: cannot be written: {_said(err)}") from err
    if not np.allclose(read_grid(path, grid.ending).matrix, grid.matrix, rtol=1e-9, atol=1e-6):
        raise CaseError(
            f"{path}: {grid.ending} does not keep this geometry (axes not at right angles?); "
            "convert the scan to NIfTI"
        )


class _Held:
    """An image's voxels for numpy, without a copy, and the image kept alive as long as they are."""

    def __init__(self, image: sitk.Image) -> None:
        self.image = image
        view = sitk.GetArrayViewFromImage(image)
        address = view.__array_interface__["data"][0]
        self.__array_interface__ = {**view.__array_interface__, "data": (address, False)}


@dataclass(frozen=True)
class _Information:
    """What a header says."""

    text: itk_header.HeaderText
    reader: sitk.ImageFileReader
    voxel_bytes: int
    grid: Grid
    notes: list[str]


def _information(path: Path, ending: str, channels: int) -> _Information:
    name = str(path)
    text = itk_header.read_header(path, ending)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[ending])
    reader.SetFileName(name)
    try:
        reader.ReadImageInformation()
    except RuntimeError as err:
        raise CaseError(f"{name}: its header cannot be read: {_said(err)}") from err
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if reader.GetNumberOfComponents() > 1 or "complex" in kind:
        raise CaseError(
            f"{name}: must hold one number per voxel, it holds {reader.GetNumberOfComponents()} "
            f"({kind}: colour, a list or a vector); save the volume that is meant alone"
        )
    grid, notes = _grid(reader, name, ending, channels)
    voxel_bytes = math.prod(reader.GetSize()) * (int(kind.partition("-bit")[0]) // 8)
    notes = itk_header.space_notes(text, ending) + notes
    return _Information(text, reader, voxel_bytes, grid, notes)


def _grid(
    reader: sitk.ImageFileReader, name: str, ending: str, channels: int
) -> tuple[Grid, list[str]]:
    stored = file_axes(tuple(reader.GetSize()), name, channels=channels)
    axes = reader.GetDimension()
    spacing, origin = reader.GetSpacing(), reader.GetOrigin()
    direction = np.array(reader.GetDirection()).reshape(axes, axes)
    if axes > 4 or (axes == 4 and (direction[3, :3].any() or direction[:3, 3].any())):
        raise CaseError(f"{name}: must be an image in space, its {axes} axes are mixed; save it 3D")
    if len(stored) < axes:  # the mask has no axis of channels
        axes, spacing, origin, direction = 3, spacing[:3], origin[:3], direction[:3, :3]
    checked_spacing(spacing[:3], name)
    n = min(axes, 3)
    affine = np.eye(4)
    affine[:n, :n] = direction[:n, :n] * spacing[:n]
    affine[:n, 3] = origin[:n]
    rows, notes = checked_affine(_LPS_TO_RAS @ affine, spacing[:3], name)
    geometry = {
        "spacing": list(spacing),
        "origin": list(origin),
        "direction": direction.ravel().tolist(),
    }
    spacing_z = spacing[2] if n > 2 else max(spacing) * FLAT_SPACING
    grid = Grid(
        shape_zyx=shape_zyx(stored),
        spacing_mm=(spacing_z, spacing[1], spacing[0]),
        affine=rows,
        stored_shape=stored,
        ending=ending,
        header=encoded(json.dumps(geometry).encode()),
    )
    return grid, notes


def _said(err: RuntimeError) -> str:
    """The last line of ITK's message that says something, without addresses."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Reason: No such file")] or lines
    return re.sub(r"^ITK ERROR: |\w+\(0x[0-9a-f]+\): ", "", lines[-1])
