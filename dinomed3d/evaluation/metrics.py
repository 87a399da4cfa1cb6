"""Dice, 95th-percentile Hausdorff distance and surface Dice of two masks, by MONAI."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

BORDER = 2
"""Voxels kept around both masks when the rest of the volume is cut off."""


class Scores(NamedTuple):
    """Agreement of a predicted mask with its reference."""

    dice: float
    """2 |R and P| / (|R| + |P|), 0 to 1."""
    hd95_mm: float
    """The larger of the two 95th percentiles of distances from one surface to the other."""
    surface_dice: float
    """Share of both surfaces, by area, within the tolerance of the other surface, 0 to 1."""


def score(
    reference: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    *,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> Scores:
    """Compare two masks on one grid.

    Both masks empty: all scores are NaN, the case does not count for this label. One mask empty:
    Dice and surface Dice are 0 and HD95 is NaN, since there is no distance.

    Args:
        reference: (Z, Y, X) or (Y, X).
        prediction: as `reference`.
        spacing_mm: size of a voxel along each axis.
        tolerance_mm: distance that surface Dice accepts.

    Raises:
        ValueError: masks of different shapes, or a number of spacings that is not that of the axes.

    Source: Dice 1945; Huttenlocher et al. 1993 (Hausdorff); Nikolov et al. 2018, arXiv:1809.04430
    (surface Dice, with areas of surface elements on the voxel grid).
    """
    if reference.shape != prediction.shape or len(spacing_mm) != reference.ndim:
        raise ValueError(
            f"score: 'reference', 'prediction' and 'spacing_mm' must be of one grid, got {reference.shape}, "
            f"{prediction.shape} and {len(spacing_mm)} spacings"
        )
    both = reference | prediction
    if not both.any():
        return Scores(float("nan"), float("nan"), float("nan"))
    if not (reference.any() and prediction.any()):
        return Scores(0.0, float("nan"), 0.0)
    for axis in (2, 1, 0):  # a single slice, whichever way it lies, has no surface across slices
        if both.ndim == 3 and both.shape[axis] == 1:
            reference, prediction, both = (
                mask.squeeze(axis) for mask in (reference, prediction, both)
            )
            spacing_mm = [side for number, side in enumerate(spacing_mm) if number != axis]
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    box = _box(both)
    y, y_pred = (
        torch.from_numpy(np.ascontiguousarray(mask[box]).view(np.uint8))[None, None]
        for mask in (reference, prediction)
    )
    spacing = [float(side) for side in spacing_mm]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's, about its own calls
        dice = compute_dice(y_pred, y, ignore_empty=False)
        hd95 = compute_hausdorff_distance(
            y_pred, y, include_background=True, percentile=95, spacing=spacing
        )
        surface = compute_surface_dice(
            y_pred,
            y,
            class_thresholds=[tolerance_mm],
            include_background=True,
            spacing=spacing,
            use_subvoxels=True,
        )
    return Scores(float(dice), float(hd95), float(surface))


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The part of the volume around all true voxels."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(k for k in range(mask.ndim) if k != axis)
        (places,) = np.nonzero(mask.any(others))
        box.append(slice(max(0, int(places[0]) - BORDER), int(places[-1]) + 1 + BORDER))
    return tuple(box)
