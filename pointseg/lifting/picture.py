"""A picture of lifted features: an image, the points over it, and the cloud in both colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pointseg.images.preprocess import load_images
from pointseg.lifting.encoding import PixelViews
from pointseg.lifting.views import Views, lift_rows
from pointseg.pictures.overlay import UNSEEN, paint_over
from pointseg.pictures.render import PAPER, render
from pointseg.pictures.sheets import sheet

if TYPE_CHECKING:
    from pointseg.scene import Scene

PANEL = (800, 600)
"""Width and height of each of the four pictures, pixels."""
DRAWN = 400_000
"""Points that are drawn, at most."""


def draw_lifted(
    cloud: Scene, views: Views, colors: NDArray[np.uint8], title: str, *, picked: int | None = None
) -> Image.Image:
    """An image and the points over it, above the cloud in its own colours and in those of the features.

    Args:
        cloud: M points in metres with z up.
        views: that show them.
        colors: (M, 3) colours by features.
        title: what these mean.
        picked: row of a point that is marked in the image. None: none is.
    """
    rows = np.arange(0, len(cloud), -(-len(cloud) // DRAWN))
    own, whose = _own_colors(cloud, views, rows)
    view = _view(views, picked)
    photo, over = _in_image(views, view, colors, picked)
    clouds = [render(cloud.coord[rows], c, size=PANEL) for c in (own, colors[rows])]
    return sheet(
        [
            (f"image {views.frames[view].name}", _fitted(photo)),
            (title, _fitted(over)),
            (f"colours of the {whose}", clouds[0]),
            (f"{title} ({views.seen.mean():.0%} of the points)", clouds[1]),
        ],
        columns=2,
    )


def _view(views: Views, picked: int | None) -> int:
    """The view that shows the most points, of those that show the picked one."""
    shown = [views.shown(view).rows for view in range(len(views))]
    good = [v for v, rows in enumerate(shown) if picked is None or picked in rows]
    return max(good, key=lambda view: len(shown[view]))


def _own_colors(
    cloud: Scene, views: Views, rows: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], str]:
    """(n, 3) colours of the cloud, or else of the images, and whose they are."""
    if "color" in cloud and cloud["color"].any():
        return cloud["color"][rows].astype(np.uint8), "cloud"
    found = lift_rows(views, PixelViews(views), rows, fuse="mean", sample="bilinear").numpy()
    found[~views.seen[rows]] = UNSEEN
    return np.clip(found + 0.5, 0, 255).astype(np.uint8), "images"


def _in_image(
    views: Views, view: int, colors: NDArray[np.uint8], picked: int | None
) -> tuple[Image.Image, Image.Image]:
    """An image, and the points that it shows drawn over it."""
    images, _ = load_images([views.frames[view]], views.sizes[view])
    photo, shown = images[0].transpose(1, 2, 0), views.shown(view)
    over = paint_over(photo, shown.uv, shown.distance, colors[shown.rows])
    if picked is not None:
        u, v = shown.uv[np.flatnonzero(shown.rows == picked)[0]]
        reach = max(photo.shape) / 80
        ImageDraw.Draw(over).ellipse(
            (u - reach, v - reach, u + reach, v + reach), outline=(0, 255, 255), width=3
        )
    return Image.fromarray(photo), over


def _fitted(picture: Image.Image) -> Image.Image:
    """A picture in the size of a panel, on paper."""
    scale = min(PANEL[0] / picture.width, PANEL[1] / picture.height)
    small = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    panel = Image.new("RGB", PANEL, PAPER)
    panel.paste(small, ((PANEL[0] - small.width) // 2, (PANEL[1] - small.height) // 2))
    return panel
