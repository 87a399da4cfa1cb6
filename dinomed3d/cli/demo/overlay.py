"""A picture of segmentations: one row per case, columns image, truth, prediction, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RIGHT, WRONG = "#cdd0d4", "#d62728"
"""Voxels of structures whose label is right and wrong; they differ in brightness, too."""


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

    def errors(self) -> tuple[NDArray[np.uint8], float]:
        """Compare prediction and truth in the slice that is shown.

        Returns:
            (Y, X): 0 where both are background, 1 right, 2 wrong; share of wrong voxels among those that
            either calls a structure, 0 if there are none.
        """
        truth, prediction = self.truth[self.slice_index], self.prediction[self.slice_index]
        wrong, structure = truth != prediction, (truth != 0) | (prediction != 0)
        marks = np.where(wrong, 2, structure).astype(np.uint8)
        return marks, float(wrong.sum() / max(1, structure.sum()))


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
    colours = ListedColormap([COLOURS[k % len(COLOURS)] for k in range(max(values.values()))])
    figure = Figure(figsize=(12, 3 * len(cases) + 0.8), layout="constrained")
    axes = figure.subplots(len(cases), 4, squeeze=False)
    for row, case in zip(axes, cases, strict=True):
        z = case.slice_index
        marks, share = case.errors()
        panels = (
            (f"{case.name}, slice {z}", None, colours),
            ("truth", case.truth[z], colours),
            ("prediction", case.prediction[z], colours),
            (f"errors: {share:.1%} of structures", marks, ListedColormap([RIGHT, WRONG])),
        )
        for axis, (title, mask, map_) in zip(row, panels, strict=True):
            _draw_panel(axis, case, mask, map_)
            axis.set_title(title, fontsize=11)
    handles = [Patch(color=colours(value - 1), label=name) for name, value in values.items()]
    handles += [Patch(color=RIGHT, label="right"), Patch(color=WRONG, label="wrong")]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=110)


def _draw_panel(axis: Axes, case: OverlayCase, mask: NDArray[Any] | None, colours: Any) -> None:
    """Draw a slice in grey, and over it a mask whose value k has colour k - 1."""
    grey, aspect = (
        case.image[case.slice_index].astype(float),
        case.spacing_mm[1] / case.spacing_mm[2],
    )
    low, high = np.percentile(grey, (1, 99))
    axis.imshow(grey, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
    if mask is not None:
        shown = np.ma.masked_equal(mask, 0)
        style = {"cmap": colours, "vmin": 0.5, "vmax": colours.N + 0.5, "alpha": 0.65}
        axis.imshow(shown, aspect=aspect, interpolation="nearest", **style)
    axis.set_axis_off()
