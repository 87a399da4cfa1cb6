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
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure  # a bare figure: no window system, no global state
    from matplotlib.patches import Patch

    values = {name: value for name, value in labels.items() if value != 0}
    highest = max(values.values())
    colours = ListedColormap([COLOURS[k % len(COLOURS)] for k in range(highest)])
    figure = Figure(figsize=(9, 3 * len(cases) + 0.8), layout="constrained")
    axes = figure.subplots(len(cases), 3, squeeze=False)
    for row, case in zip(axes, cases, strict=True):
        z = case.slice_index
        grey, aspect = case.image[z].astype(float), case.spacing_mm[1] / case.spacing_mm[2]
        low, high = np.percentile(grey, (1, 99))
        masks = (None, case.truth, case.prediction)
        titles = (f"{case.name}, slice {z}", "truth", "prediction")
        for axis, title, mask in zip(row, titles, masks, strict=True):
            axis.imshow(grey, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
            if mask is not None:
                shown = np.ma.masked_equal(mask[z], 0)
                style = {"cmap": colours, "vmin": 0.5, "vmax": highest + 0.5, "alpha": 0.65}
                axis.imshow(shown, aspect=aspect, interpolation="nearest", **style)
            axis.set_title(title, fontsize=11)
            axis.set_axis_off()
    handles = [Patch(color=colours(value - 1), label=name) for name, value in values.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=110)
