"""A picture of segmentations: one row per case, columns image, truth, prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.palette import COLOURS


@dataclass(frozen=True, kw_only=True)
class OverlayCase:
    """One row: three arrays (Z, Y, X) on the same grid."""

    name: str
    image: NDArray[Any]
    truth: NDArray[Any]
    prediction: NDArray[Any]
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Voxel size (z, y, x)."""

    def __post_init__(self) -> None:
        """Refuse arrays on different grids."""
        shapes = [a.shape for a in (self.image, self.truth, self.prediction)]
        if self.image.ndim != 3 or len(set(shapes)) != 1:
            raise ValueError(
                "OverlayCase: 'image', 'truth' and 'prediction' must be (Z, Y, X) of one shape, "
                f"got {shapes}"
            )

    @property
    def slice_index(self) -> int:
        """The slice with most foreground in the truth; the middle one if there is none."""
        per_slice = (self.truth > 0).sum((1, 2))
        return int(per_slice.argmax()) if per_slice.any() else self.truth.shape[0] // 2


def draw_overlay(path: Path, cases: Sequence[OverlayCase], *, labels: Mapping[str, int]) -> None:
    """Draw the cases into a picture file.

    Args:
        path: where to; the ending names the format.
        cases: at least one.
        labels: name to value; 0 is the background and is not drawn.

    Raises:
        ValueError: no cases.
    """
    if not cases:
        raise ValueError("draw_overlay: 'cases' must hold at least one case, got none")
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure  # a bare figure: no window system, no global state
    from matplotlib.patches import Patch

    values = {name: value for name, value in labels.items() if value != 0}
    colours = {value: to_rgb(COLOURS[k % len(COLOURS)]) for k, value in enumerate(values.values())}
    figure = Figure(figsize=(9, 3 * len(cases) + 0.8), layout="constrained")
    axes = figure.subplots(len(cases), 3, squeeze=False)
    for row, case in zip(axes, cases, strict=True):
        z = case.slice_index
        grey = case.image[z].astype(float)
        low, high = np.percentile(grey, (1, 99))
        columns = (("image", None), ("truth", case.truth), ("prediction", case.prediction))
        for axis, (title, mask) in zip(row, columns, strict=True):
            aspect = case.spacing_mm[1] / case.spacing_mm[2]
            axis.imshow(grey, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
            if mask is not None:
                axis.imshow(_paint(mask[z], colours), aspect=aspect, interpolation="nearest")
            axis.set_title(f"{case.name}, slice {z}" if title == "image" else title, fontsize=11)
            axis.set_axis_off()
    handles = [Patch(color=colours[value], label=name) for name, value in values.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=110)


def _paint(mask: NDArray[Any], colours: Mapping[int, tuple[float, float, float]]) -> NDArray[Any]:
    """Colour a mask (Y, X) as RGBA (Y, X, 4) in [0, 1], clear where it is background."""
    painted = np.zeros((*mask.shape, 4))
    for value, rgb in colours.items():
        painted[mask == value] = (*rgb, 0.65)
    return painted
