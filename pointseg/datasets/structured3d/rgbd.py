"""Points of one RGB-D rendering of Structured3D: where its pixels are, with colour, normal and label.

Source: the rules by which Pointcept makes rooms (Wu 2024, arXiv:2308.09718): pixels with depth and label, seen at
an angle that is not too flat. Differs: rays go through the centres of pixels, not their corners.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.structured3d.dataset import LABEL_MAP
from pointseg.images.readers.image_files import DepthFile, ImageFile, image_size
from pointseg.images.readers.pillow import opened_image

RGB, DEPTH, SEMANTIC = "rgb_rawlight.png", "depth.png", "semantic.png"
DEPTH_PER_M = 1000.0
FLATTEST = 0.15
"""Pixels count if the cosine between ray and normal is above this."""
REACH = 2
"""Pixels from one to the neighbours that its normal is made from."""
EDGE = 2.0
"""Where one neighbour is this many times as far as the other, there is an edge between."""
LARGEST_SIDE = 8192
"""Images with longer sides are refused: official ones have at most 1280 pixels."""

Points = dict[str, NDArray[Any]]
"""Arrays by name: coord (N, 3) float64 metres, color (N, 3) uint8, normal (N, 3) float32, segment (N,) int16."""


@dataclass(frozen=True)
class Rendering:
    """The images of one view."""

    color: NDArray[np.uint8]
    """(H, W, 3)."""
    depth_m: NDArray[np.float32]
    """(H, W), 0 where there is none; along the axis of a pinhole, along the ray of a panorama."""
    semantic: NDArray[np.uint8]
    """(H, W) ids of NYU40, 0 where there is none."""


def read_rendering(folder: Path) -> Rendering:
    """Read colour, depth and labels of a view.

    Raises:
        UserError: an image is missing or damaged, of another kind, or of another size than the others.
    """
    size = rendering_size(folder)
    color, depth = ImageFile(folder / RGB).read(), DepthFile(folder / DEPTH, DEPTH_PER_M).read()
    semantic = _read_ids(folder / SEMANTIC)
    for name, values in ((RGB, color), (DEPTH, depth), (SEMANTIC, semantic)):
        if values.shape[:2] != size:
            raise DatasetError(
                f"{folder / name}: is {values.shape[1]} x {values.shape[0]} pixels (width x height), "
                f"{RGB} {size[1]} x {size[0]}; unpack the download again"
            )
    return Rendering(color, depth, semantic)


def rendering_size(folder: Path) -> tuple[int, int]:
    """Height and width of the images of a view, which all have the same.

    Raises:
        UserError: the colour image is missing or damaged; an image is too large.
    """
    for name in (RGB, DEPTH, SEMANTIC):
        size = image_size(folder / name)
        if max(size) > LARGEST_SIDE:
            raise DatasetError(
                f"{folder / name}: has {size[1]} x {size[0]} pixels, more than {LARGEST_SIDE} a side"
            )
    return image_size(folder / RGB)


def visible_points(
    found: Rendering,
    rays: NDArray[np.float64],
    centre: NDArray[np.float64],
    *,
    closed: bool,
    where: str,
) -> Points:
    """The points of a view that count.

    Args:
        found: its images.
        rays: (H, W, 3) vectors that depth is measured along.
        centre: (3,) where they begin, metres.
        closed: whether the last column is next to the first, as in panoramas.
        where: the view, for messages.

    Raises:
        DatasetError: ids that NYU40 does not have.
    """
    known = (found.depth_m > 0) & (found.semantic > 0)
    xyz = centre + rays * found.depth_m[..., None]
    normal = pixel_normals(xyz, found.depth_m > 0, centre, closed=closed)
    towards = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    keep = known & (np.abs((normal * towards).sum(-1)) > FLATTEST)
    return {
        "coord": xyz[keep],
        "color": found.color[keep],
        "normal": normal[keep].astype(np.float32),
        "segment": LABEL_MAP(found.semantic[keep], where).astype(np.int16),
    }


def pixel_normals(
    xyz: NDArray[np.float64],
    known: NDArray[np.bool_],
    centre: NDArray[np.float64],
    *,
    closed: bool,
) -> NDArray[np.float64]:
    """Unit normals of the surface through neighbouring pixels, towards the camera.

    Differences are taken over ``REACH`` pixels to both sides, because depth in whole millimetres makes those of
    direct neighbours too coarse; at edges to the side that is nearer in space, which is on the same surface.

    Args:
        xyz: (H, W, 3) where the pixels are.
        known: (H, W) whether that is known.
        centre: (3,) the camera.
        closed: whether the last column is next to the first.

    Returns:
        (H, W, 3), zero where a pixel or its neighbours are not known.
    """
    normal = np.cross(_step(xyz, known, 1, wrap=closed), _step(xyz, known, 0, wrap=False))
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    facing = ((centre - xyz) * normal).sum(-1, keepdims=True) >= 0
    unit = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
    return np.where(facing, unit, -unit)


def _step(
    xyz: NDArray[np.float64], known: NDArray[np.bool_], axis: int, *, wrap: bool
) -> NDArray[np.float64]:
    """(H, W, 3) change of position along an axis of the image, zero where it is not known."""
    ahead = np.roll(xyz, -REACH, axis) - xyz
    usable = known & np.roll(known, -REACH, axis)
    if not wrap:
        np.moveaxis(usable, axis, 0)[-REACH:] = False
    length = np.where(usable, np.linalg.norm(ahead, axis=-1), np.inf)
    behind, length_behind = np.roll(ahead, REACH, axis), np.roll(length, REACH, axis)
    shorter, longer = np.minimum(length, length_behind), np.maximum(length, length_behind)
    step = np.where((length <= length_behind)[..., None], ahead, behind)
    smooth = longer <= EDGE * shorter
    step[smooth] = (ahead[smooth] + behind[smooth]) / 2
    step[np.isinf(shorter)] = 0
    return step


def _read_ids(path: Path) -> NDArray[np.uint8]:
    """(H, W) the stored numbers of an 8-bit image, which are indices where it has a palette."""
    with opened_image(path, path) as image:
        if image.mode not in ("L", "P"):
            raise DatasetError(
                f"{path}: must hold a number of 8 bits per pixel, has mode {image.mode}"
            )
        return np.asarray(image)
