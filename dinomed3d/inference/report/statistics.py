"""Volume and intensities of each label of a mask: what `--statistics` reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def label_statistics(
    mask: NDArray[Any],
    channels: Sequence[NDArray[Any]],
    labels: Mapping[str, Sequence[int]],
    *,
    names: Sequence[str],
    voxel_ml: float,
) -> dict[str, dict[str, Any]]:
    """Measure the volume of each label, and the mean and deviation of each channel within it.

    Args:
        mask: (Z, Y, X), unsigned.
        channels: of the scan, (Z, Y, X) each, as stored and rescaled by their headers.
        labels: name of each label or region -> its values; background is left out.
        names: of the channels.
        voxel_ml: volume of a voxel, ml.

    Returns:
        Name -> `volume_mm3`, `volume_ml`, and `intensities`: channel -> `mean` and `std` (of the population, so
        divided by the number of voxels) over the voxels with finite values, None where there is none.
    """
    size = 1 + max(int(mask.max()), *(v for values in labels.values() for v in values), 0)
    voxels = sum(np.bincount(plane.ravel(), minlength=size) for plane in mask)
    moments = [_moments(mask, channel, size) for channel in channels]
    found = {}
    for name, values in labels.items():
        chosen = list(values)
        ml = int(np.asarray(voxels)[chosen].sum()) * voxel_ml
        found[name] = {
            "volume_mm3": round(ml * 1000, 3),
            "volume_ml": round(ml, 6),
            "intensities": {
                channel: _of_union(*(part[chosen] for part in moment))
                for channel, moment in zip(unique_names(names), moments, strict=True)
            },
        }
    return found


def unique_names(names: Sequence[str]) -> list[str]:
    """Names of channels, with their numbers where several have one name."""
    return [n if names.count(n) == 1 else f"{n} {number}" for number, n in enumerate(names)]


def _moments(
    mask: NDArray[Any], channel: NDArray[Any], size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Number of finite voxels, their mean, and the sum of squared deviations from it, for each value (size,)."""
    count, total, squares = np.zeros(size), np.zeros(size), np.zeros(size)
    for values, plane in _labelled(mask, channel):
        count += np.bincount(values, minlength=size)
        total += np.bincount(values, plane, minlength=size)
    mean = total / np.maximum(count, 1)
    for values, plane in _labelled(mask, channel):
        # from the mean: squares of Hounsfield units lose digits otherwise
        squares += np.bincount(values, (plane - mean[values]) ** 2, minlength=size)
    return count, mean, squares


def _labelled(mask: NDArray[Any], channel: NDArray[Any]) -> Any:
    """Values and intensities of the labelled voxels of each plane that are finite."""
    for values, plane in zip(mask, channel, strict=True):
        inside = (values > 0) & np.isfinite(plane)
        if inside.any():
            yield values[inside], plane[inside].astype(np.float64)


def _of_union(
    count: NDArray[np.float64], mean: NDArray[np.float64], squares: NDArray[np.float64]
) -> dict[str, float | None]:
    """Mean and deviation of several values together."""
    number = count.sum()
    if not number:
        return {"mean": None, "std": None}
    middle = float((count * mean).sum() / number)
    spread = float((squares + count * (mean - middle) ** 2).sum() / number)
    return {"mean": float(f"{middle:.7g}"), "std": float(f"{spread**0.5:.7g}")}


def statistics_columns(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Columns of report.csv: LABEL_mean and LABEL_std, with the channel's name between where there are several."""
    columns: dict[str, float | None] = {}
    for name, entry in ((record.get("statistics") or {}).get("labels") or {}).items():
        for channel, found in entry["intensities"].items():
            stem = name if len(entry["intensities"]) == 1 else f"{name}_{channel}"
            columns |= {f"{stem}_{what}": found[what] for what in ("mean", "std")}
    return columns


def are_statistics(content: object) -> bool:
    """Whether an entry of a record has the form that reports expect."""

    def has(entry: object, *keys: str) -> bool:
        return isinstance(entry, dict) and all(
            entry.get(key) is None or type(entry[key]) in (int, float) for key in keys
        )

    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        return False
    return all(
        has(entry, "volume_mm3", "volume_ml")
        and isinstance(entry.get("intensities"), dict)
        and all(
            has(f, "mean", "std") and {"mean", "std"} <= f.keys()
            for f in entry["intensities"].values()
        )
        for entry in content["labels"].values()
    )
