"""MetaImage and NRRD through SimpleITK; their headers are looked at first for what it makes up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.grid import (
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
from dinomed3d.inference.voxels import watched

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_HEADER_BYTES = 2**20
_READERS = {".mha": "MetaImageIO", ".nrrd": "NrrdImageIO"}
_KNOWN_SPACES = {
    *("left-posterior-superior", "lps", "right-anterior-superior", "ras"),
    *("left-anterior-superior", "las"),
}
"""What ITK turns into its own LPS; it takes all others for LPS without a word."""


def read_grid(path: Path, ending: str, *, channels: int = 1) -> Grid:
    """The grid of a mask for this file; reads its header alone.

    Raises:
        CaseError: It is not there, not this format, or its header cannot place a mask.
    """
    return _information(path, ending, channels)[1]


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
    reader, grid, notes = _information(path, ending, channels)
    try:
        image = reader.Execute()
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


def _information(
    path: Path, ending: str, channels: int
) -> tuple[sitk.ImageFileReader, Grid, list[str]]:
    name = str(path)
    notes = _checked_text(_header_text(path, ending), name, ending)
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
    grid, more = _grid(reader, name, ending, channels)
    return reader, grid, notes + more


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


def _header_text(path: Path, ending: str) -> str:
    try:
        with open(path, "rb") as stream:
            start = stream.read(_HEADER_BYTES)
    except OSError as err:
        raise CaseError(f"{path}: cannot be read: {err.strerror or err}") from err
    if not start:
        raise CaseError(f"{path}: is empty (0 bytes); copy it again")
    if ending == ".nrrd":
        if not start.startswith(b"NRRD"):
            raise CaseError(f"{path}: is no NRRD file: it does not start with NRRD")
        head = re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0]
    else:
        head, found, _ = start.partition(b"ElementDataFile")
        if not found or b"NDims" not in head:
            raise CaseError(f"{path}: is no MetaImage: its header lacks NDims or ElementDataFile")
    return head.decode("latin-1")


def _checked_text(text: str, name: str, ending: str) -> list[str]:
    """Whether the header says how large voxels are, and which way its axes point.

    Raises:
        CaseError: No voxel size, one that is not positive, or a space that ITK does not know.
    """
    fields = {
        key.strip().lower(): value.strip()
        for key, _, value in (
            re.sub("^(.*?):=?", r"\1=", line, count=1).partition("=") for line in text.splitlines()
        )
    }
    if ending == ".mha":
        spacing = fields.get("elementspacing", fields.get("elementsize", ""))
    else:
        spacing = fields.get("space directions", fields.get("spacings", ""))
    if not spacing:
        raise CaseError(f"{name}: must say how large its voxels are, its header has no spacing")
    if "space directions" not in fields or ending == ".mha":
        try:
            numbers = tuple(float(word) for word in spacing.split())
        except ValueError as err:
            raise CaseError(f"{name}: its voxel size must be numbers, it is {spacing!r}") from err
        checked_spacing(numbers, name)
    elif "none" in spacing:
        raise CaseError(
            f"{name}: must be one image in space, an axis of it has no direction (a list, time or "
            "colour?); save the volume that is meant alone"
        )
    if ending == ".mha":
        return []
    space = fields.get("space", "").lower().removesuffix("-time")
    if space and space not in _KNOWN_SPACES:
        raise CaseError(
            f"{name}: its space must be LPS, RAS or LAS, it is {fields['space']!r}; convert it"
        )
    return (
        [] if space else ["its header names no space; axes are taken as left, posterior, superior"]
    )


def _said(err: RuntimeError) -> str:
    """The last line of ITK's message that says something, without addresses."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Reason: No such file")] or lines
    return re.sub(r"^ITK ERROR: |\w+\(0x[0-9a-f]+\): ", "", lines[-1])
