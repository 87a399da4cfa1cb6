"""Points drawn over the images that show them, and clouds in the colours of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pointseg.pictures.render import render
from pointseg.pictures.sheets import sheet
from pointseg.pictures.viewpoints import VIEWPOINTS

if TYPE_CHECKING:
    from matplotlib.cm import ScalarMappable

UNSEEN = (205, 205, 205)
"""Points that no image shows."""
LARGEST = 1600
"""Width of pictures over images, pixels; larger ones are made smaller."""
_FADED = 0.55
"""Brightness of the image under the points."""


def over_image(
    image: NDArray[np.uint8],
    uv: NDArray[np.floating[Any]],
    depth: NDArray[np.floating[Any]],
    *,
    title: str = "",
) -> Image.Image:
    """Points over an image, from red (near) through green to violet (far), with a scale in metres.

    Args:
        image: (H, W, 3).
        uv: (N, 2) pixels; points outside of the image are left out.
        depth: (N,) metres, above 0; of points in one place the nearest is drawn.
        title: a line above.
    """
    inside = _inside(image, uv, depth)
    near, far = _range(depth[inside])
    colors = np.zeros((len(depth), 3), np.uint8)
    colors[inside] = depth_colors(depth[inside], near, far)
    return sheet([(title, paint_over(image, uv, depth, colors))], scale=_scale(near, far))


def paint_over(
    image: NDArray[np.uint8],
    uv: NDArray[np.floating[Any]],
    depth: NDArray[np.floating[Any]],
    colors: NDArray[np.uint8],
) -> Image.Image:
    """Points in their colours over an image, which is darker there.

    Args:
        image: (H, W, 3); a wider one than ``LARGEST`` is made smaller.
        uv: (N, 2) pixels; points outside of the image are left out.
        depth: (N,) metres, above 0; of points in one place the nearest is drawn.
        colors: (N, 3) red, green, blue.
    """
    height, width = image.shape[:2]
    scale = min(1.0, LARGEST / width)
    small = Image.fromarray(image)
    if scale < 1:
        small = small.resize((LARGEST, max(1, round(height * scale))), Image.Resampling.BILINEAR)
    canvas = np.asarray(small, np.float32) * _FADED
    inside = _inside(image, uv, depth)
    shape = (canvas.shape[0], canvas.shape[1])
    grid = np.array([shape[1] / width, shape[0] / height])
    place = np.minimum((uv[inside] * grid).astype(np.int64), np.array(shape[::-1]) - 1)
    # Points as squares that fill about a third of the image at most.
    most = np.sqrt(0.35 * shape[0] * shape[1] / max(1, len(place)))
    reach = int(np.clip(most / 2, 0, 2))
    order = np.argsort(-depth[inside], kind="stable")
    painted = colors[inside][order]
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            rows = np.clip(place[order, 1] + down, 0, shape[0] - 1)
            columns = np.clip(place[order, 0] + right, 0, shape[1] - 1)
            canvas[rows, columns] = painted
    return Image.fromarray(np.clip(canvas + 0.5, 0, 255).astype(np.uint8))


def _inside(
    image: NDArray[np.uint8], uv: NDArray[np.floating[Any]], depth: NDArray[np.floating[Any]]
) -> NDArray[np.bool_]:
    height, width = image.shape[:2]
    return np.asarray((uv >= 0).all(1) & (uv[:, 0] < width) & (uv[:, 1] < height) & (depth > 0))


def depth_colors(depth: NDArray[np.floating[Any]], near: float, far: float) -> NDArray[np.uint8]:
    """(N,) depths as (N, 3) colours, by their logarithm: red at ``near``, violet at ``far``."""
    found = _scale(near, far).to_rgba(depth, bytes=True)  # type: ignore[arg-type]
    return np.asarray(found)[:, :3]


def from_images(
    coord: NDArray[np.floating[Any]],
    colors: NDArray[Any],
    seen: NDArray[np.bool_],
    *,
    own: NDArray[Any] | None = None,
    up: str = "z",
    size: tuple[int, int] = (800, 640),
) -> Image.Image:
    """A cloud in the colours of its images, from above and from the side.

    Args:
        coord: (N, 3).
        colors: (N, 3) what the images show there, 0 to 255.
        seen: (N,) whether any does.
        own: (N, 3) the cloud's own colours, shown below for comparison.
        up: the axis that points up.
        size: of each picture.
    """
    shown = np.where(seen[:, None], colors, np.array(UNSEEN))
    rows = [(f"colours of the images ({seen.mean():.1%} of the points; grey: unseen)", shown)]
    if own is not None:
        rows.append(("colours of the cloud itself", np.asarray(own)))
    panels = [
        (f"{title}, {words}", render(coord, painted, viewpoint=viewpoint, size=size, up=up))
        for title, painted in rows
        for viewpoint, words in zip(VIEWPOINTS, ("from above", "from the side"), strict=True)
    ]
    return sheet(panels, columns=2)


def _range(depth: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """What is drawn in the first and in the last colour, metres."""
    if not len(depth):
        return 1.0, 10.0
    near, far = np.percentile(depth, [1, 99])
    return float(near), float(max(far, near * 1.05))


def _scale(near: float, far: float) -> ScalarMappable:
    """The colours of depths: red near, violet far."""
    from matplotlib.cm import ScalarMappable  # slow to import
    from matplotlib.colors import LogNorm

    return ScalarMappable(LogNorm(near, far, clip=True), "turbo_r")
