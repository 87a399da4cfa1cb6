"""Detects depth maps in another unit than the points."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from dinomed3d.lifting import Camera
from pointseg.images.camera_check.agreement import MIN_POINTS, ProjectedPoints, depth_pairs
from pointseg.images.camera_check.pose_check import FITTING_SHARE


def depth_factor(projected: ProjectedPoints, camera: Camera, depth: Tensor) -> float | None:
    """Factor by which the depths of a map are too large; None if there is none, or it is unclear.

    All points on the surfaces that the map shows have the same ratio to it, whatever its unit; occluded
    points have any. The factor is the mode of the ratios.
    """
    measured, distance = depth_pairs(projected, camera, depth)
    if len(measured) < MIN_POINTS:
        return None
    ratio = torch.log(measured / distance).numpy()
    counts, edges = np.histogram(ratio, bins=np.arange(-12, 12.04, 0.04))
    near = np.abs(ratio - (edges[int(counts.argmax())] + 0.02)) < 0.06
    factor = float(np.exp(np.median(ratio[near])))
    if near.mean() < FITTING_SHARE or 0.9 < factor < 1.1:
        return None
    return factor


def explain_depth_factor(
    factor: float, *, scale: float | None, unit_m: float | None, units: Mapping[str, float]
) -> str:
    """Name the unit that would explain a factor between depth map and distances.

    Args:
        factor: see ``depth_factor``.
        scale: stated units of the depth map per metre; None: it has no such setting.
        unit_m: stated metres per unit of points and poses; None: they have no such setting.
        units: metres per unit by the name of the unit.
    """
    times = f"{factor:.4g} times" if factor > 1 else f"1/{1 / factor:.4g} of"
    found = f"the depth map says {times} the distance of the points that lie on it: "
    points = depths = ""
    if unit_m is not None:
        names = {metres: name for name, metres in units.items()}
        meant = min(units, key=lambda name: abs(np.log(unit_m * factor / units[name])), default="")
        if meant and units[meant] != unit_m and 0.9 < unit_m * factor / units[meant] < 1.1:
            stated = names.get(unit_m, f"{unit_m:g} m")
            points = (
                f"the unit of points and poses is {meant}, not {stated} (--unit {meant}, or 'unit: {meant}' "
                "in dataset.yaml)"
            )
    if scale is not None:
        fitting = scale * factor
        power = 10.0 ** round(np.log10(fitting))
        if abs(fitting / power - 1) < 0.05:
            fitting = power
        if 1 <= fitting < 1e7:  # the range that manifests accept
            fit = f"{float(f'{fitting:.4g}'):.8g}"
            depths = f"the map is in another unit (depth_scale {fit} would fit, not {scale:g})"
    if points and depths:
        return f"{found}either {points}, or {depths}"
    return found + (
        points or depths or "check the units of the depth map, the points and the poses"
    )
