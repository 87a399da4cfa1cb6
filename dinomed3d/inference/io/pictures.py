"""PNG, BMP and TIFF, for models that were trained on them: read as nnU-Net's readers read them."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import Case, CaseError, Scan
from dinomed3d.inference.io.grid import FLAT_SPACING, Grid, Volume, check_spacing
from dinomed3d.inference.io.voxels import checked_volume

NATURAL, TIFF_STACK = "NaturalImage2DIO", "Tiff3DIO"
READERS = {NATURAL: (".png", ".bmp", ".tif"), TIFF_STACK: (".tif", ".tiff")}
"""nnU-Net's reader -> endings of the files that it reads."""
ENDINGS = tuple(dict.fromkeys(ending for endings in READERS.values() for ending in endings))
PREVIEW_OF_PNG = ".preview.png"
"""Ending of the preview of a case whose mask is a PNG; that of others is `.png`."""
SPACING_FILE = ".json"
"""Ending of the file that may lie next to a TIFF stack and holds its spacing."""
_CHANNEL = re.compile(r"_\d{4}$")
"""Ends the name of an image that is one channel of a case."""
_MAGIC = {
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".bmp": (b"BM",),
    ".tif": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}
_LONGEST_SPACING_FILE = 2**20
_COLOURS = (3, 4)
"""Channels of a colour image, and with transparency."""


def read_grid(scan: Scan) -> Grid:
    """The grid that a mask of this image gets, from its header alone.

    Raises:
        CaseError: It cannot be read, or has another number of axes than the reader takes.
    """
    path = Path(scan.files[0])
    with _errors(path, scan.ending):
        shape = _tiff_shape(path) if _is_tiff(scan) else _picture_size(path)
    axes = _stack_shape(shape, path) if scan.reader == TIFF_STACK else _plane_shape(shape, path)
    return _grid(axes, _spacing(scan)[0], scan)


def read(case: Case, channels: Sequence[str]) -> Volume:
    """All channels of a case; a colour image holds three or four of them.

    Args:
        case: Its scans in the order of their numbers.
        channels: Names of the model's, in order.

    Raises:
        CaseError: An image cannot be read, or they have other sizes or numbers of channels.

    Source: nnunetv2 NaturalImage2DIO.read_images, Tiff3DIO.read_images.
    """
    found: list[NDArray[Any]] = []
    notes: list[str] = []
    for scan in case.scans:
        path = Path(scan.files[0])
        voxels = _voxels(scan)
        if found and voxels.shape[1:] != found[0].shape:
            raise CaseError(
                f"{path}: all images of a case must have one size, it has {voxels.shape[1:]}, the first "
                f"{found[0].shape} (z, y, x)"
            )
        for channel in voxels:
            kept, more = checked_volume(channel, str(path))
            found.append(kept)
            notes += more
    if len(found) != len(channels):
        raise CaseError(
            f"{case.scans[0].files[0]}: the model needs {len(channels)} channels ({', '.join(channels)}), its "
            f"{len(case.scans)} images have {len(found)}; a colour image has 3, with transparency 4"
        )
    spacing_mm, note = _spacing(case.scans[0])
    shape = found[0].shape
    grid = _grid(
        shape if case.scans[0].reader == TIFF_STACK else shape[1:], spacing_mm, case.scans[0]
    )
    return Volume(channels=found, grid=grid, notes=[*note, *dict.fromkeys(notes)])


def write(mask: NDArray[Any], grid: Grid, path: Path) -> None:
    """A mask as nnU-Net writes it: labels as grey values.

    Args:
        mask: (Z, Y, X) uint8 or uint16.
        grid: Of the image.
        path: Is written directly; the spacing of a TIFF stack stands in the record of the case.

    Raises:
        CaseError: BMP cannot hold labels above 255.
    """
    import tifffile
    from PIL import Image

    plane = mask if len(grid.stored_shape) == 3 else mask[0]
    if grid.ending in (".tif", ".tiff"):
        tifffile.imwrite(path, plane, compression="zlib", photometric="minisblack")
        return
    if grid.ending == ".bmp" and plane.dtype != np.uint8:
        raise CaseError(f"{path}: BMP cannot hold labels above 255; convert the images to PNG")
    Image.fromarray(plane).save(path, format=grid.ending[1:].upper())


def spacing_file(name: str, ending: str) -> tuple[str, ...]:
    """Names of the file with the spacing of a TIFF stack: `case.json` of `case_0000.tif`, or of `case.tif`."""
    stem = name[: -len(ending)]
    own = (f"{stem}{SPACING_FILE}",)
    return (f"{stem[:-5]}{SPACING_FILE}", *own) if _CHANNEL.search(stem) else own


def mask_scan(path: Path, grid: Grid) -> Scan:
    """A mask that was written, as an image of one channel; its record holds the spacing."""
    is_stack = grid.ending in (".tif", ".tiff") and len(grid.stored_shape) == 3
    files: tuple[str, ...] = (str(path),)
    if is_stack:
        files += (str(path)[: -len(grid.ending)] + SPACING_FILE,)
    return Scan(files=files, ending=grid.ending, reader=TIFF_STACK if is_stack else NATURAL)


def _is_tiff(scan: Scan) -> bool:
    return scan.ending in (".tif", ".tiff")


@contextmanager
def _errors(path: Path, ending: str) -> Iterator[None]:
    """Check how the file begins; whatever its reader raises becomes a CaseError."""
    magic = _MAGIC[".tif" if ending == ".tiff" else ending]
    try:
        with open(path, "rb") as stream:
            start = stream.read(8)
    except OSError as err:
        raise CaseError(f"{path}: cannot be read: {err.strerror or err}") from err
    if not start:
        raise CaseError(f"{path}: is empty (0 bytes); copy it again")
    if not start.startswith(magic):
        raise CaseError(f"{path}: is not {ending[1:].upper()}, whatever its name says; rename it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images
            yield
    except (CaseError, MemoryError):
        raise
    except Exception as err:  # readers raise nearly anything on damaged files
        reason = (str(err).strip() or type(err).__name__).splitlines()[0]
        raise CaseError(f"{path}: is cut off or damaged: {reason}") from err


def _picture_size(path: Path) -> tuple[int, ...]:
    """(Y, X) of a PNG or BMP."""
    from PIL import Image

    with Image.open(path, formats=("PNG", "BMP")) as image:
        return image.size[::-1]


def _tiff_shape(path: Path) -> tuple[int, ...]:
    import tifffile

    # not the files that its OME description may name
    with tifffile.TiffFile(path, _multifile=False) as file:
        return tuple(int(n) for n in file.series[0].shape)


def _plane_shape(shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """(Y, X) of an image with or without colours."""
    if len(shape) == 3 and shape[-1] in _COLOURS:
        return shape[:2]
    if len(shape) == 3 and shape[0] in _COLOURS:
        return shape[1:]
    if len(shape) != 2:
        raise CaseError(
            f"{path}: must be one grey or colour image, its shape is {_by(shape)}; a stack of images needs a model "
            "that was trained on stacks"
        )
    return shape


def _stack_shape(shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    if len(shape) != 3:
        raise CaseError(
            f"{path}: must be a stack of images (z, y, x), its shape is {_by(shape)}; save the volume to segment alone"
        )
    return shape


def _voxels(scan: Scan) -> NDArray[Any]:
    """(C, Z, Y, X) as stored."""
    path = Path(scan.files[0])
    with _errors(path, scan.ending):
        if _is_tiff(scan):
            import tifffile

            with tifffile.TiffFile(path, _multifile=False) as file:
                image = np.asarray(file.series[0].asarray())
        else:
            from skimage import io

            image = np.asarray(io.imread(path))
    if scan.reader == TIFF_STACK:
        return image.reshape(1, *_stack_shape(image.shape, path))
    shape = _plane_shape(image.shape, path)
    if image.ndim == 3 and image.shape[:2] == shape:
        image = np.moveaxis(image, 2, 0)
    return np.ascontiguousarray(image).reshape(-1, 1, *shape)


def _spacing(scan: Scan) -> tuple[tuple[float, ...], list[str]]:
    """(z, y, x) and a note; the readers have no other source than the file next to a TIFF stack."""
    if scan.reader != TIFF_STACK:
        return (float(FLAT_SPACING), 1.0, 1.0), ["its pixels are taken as 1 mm, as nnU-Net does"]
    if len(scan.files) < 2:
        return (1.0, 1.0, 1.0), [
            "no file with its spacing (NAME.json) next to it: taken as 1 mm, as nnU-Net does"
        ]
    path = Path(scan.files[1])
    try:
        with open(path, "rb") as stream:
            content = json.loads(stream.read(_LONGEST_SPACING_FILE))
        values = content["spacing"]
        spacing_mm = tuple(float(v) for v in values)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as err:
        raise CaseError(
            f'{path}: must hold {{"spacing": [z, y, x]}} for the image next to it ({type(err).__name__}: {err})'
        ) from err
    if len(spacing_mm) != 3 or not all(math.isfinite(v) for v in spacing_mm):
        raise CaseError(f"{path}: 'spacing' must be three numbers (z, y, x), it is {values}")
    check_spacing(spacing_mm[::-1], str(path))
    return spacing_mm, []


def _grid(axes: Sequence[int], spacing_mm: tuple[float, ...], scan: Scan) -> Grid:
    """The grid of (Z, Y, X) or (Y, X) voxels; rows run down and columns to the right, as on a screen."""
    z, y, x = axes if len(axes) == 3 else (1, *axes)
    dz, dy, dx = spacing_mm
    depth = dz if len(axes) == 3 else 1.0
    rows = (
        (-dx, 0.0, 0.0, 0.0),
        (0.0, -dy, 0.0, 0.0),
        (0.0, 0.0, depth, 0.0),
        (0.0, 0.0, 0.0, 1.0),
    )
    return Grid(
        shape_zyx=(int(z), int(y), int(x)),
        spacing_mm=(dz, dy, dx),
        affine=rows,
        stored_shape=tuple(int(n) for n in reversed(axes)),
        ending=scan.ending,
    )


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
