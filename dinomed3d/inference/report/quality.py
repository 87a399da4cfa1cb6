"""Measures of a mask, and flags for what a person should review."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.report.connected_components import count_components

if TYPE_CHECKING:
    from dinomed3d.inference.models.model import Model

LOW_CERTAINTY = 0.7
"""A mean probability of the foreground below this is flagged."""
SPACING_RATIO = 1.5
"""A spacing is flagged if it is this factor outside the range of the training set."""
EXTENT_RATIO = 2.0
"""The same for the extent of the volume."""
VOLUME_RATIO = 1.25
"""The same for the volume of a label."""
SAMPLED_VOXELS = 8_000_000
"""About this many voxels are read for intensities: of many labelled planes only some."""


def measure(
    mask: NDArray[Any], labels: Mapping[str, int | Sequence[int]], *, voxel_ml: float
) -> dict[str, dict[str, Any]]:
    """Measure each label of a mask.

    Args:
        mask: (Z, Y, X), unsigned.
        labels: name -> value, or values of a region; background (0) and an ignore label are left out.
        voxel_ml: volume of a voxel, ml.

    Returns:
        Name -> value, voxels, volume_ml, components (voxels that touch by a face) and touches_border:
        whether it reaches the first or last plane of an axis of several planes and may be cut off there.

    Raises:
        ValueError: not a volume of unsigned numbers.
    """
    if mask.ndim != 3 or mask.dtype.kind != "u" or not mask.size:
        raise ValueError(
            "measure: 'mask' must be (Z, Y, X), unsigned, with voxels, "
            f"got {mask.dtype} of shape {mask.shape}"
        )
    wanted = {name: [int(v) for v in np.atleast_1d(value)] for name, value in labels.items()}
    wanted = {n: values for n, values in wanted.items() if values != [0] and n != "ignore"}
    size = 1 + max(int(mask.max()), *(v for values in wanted.values() for v in values), 0)
    voxels = np.zeros(size, np.int64)
    for plane in mask:
        voxels += np.bincount(plane.ravel(), minlength=size)
    cut = _at_border(mask, size)
    components = _count_components(mask, list(wanted.values()), size)
    return {
        name: {
            "value": values[0] if len(values) == 1 else values,
            "voxels": int(voxels[values].sum()),
            "volume_ml": round(int(voxels[values].sum()) * voxel_ml, 4),
            "components": count,
            "touches_border": bool(cut[values].any()),
        }
        for (name, values), count in zip(wanted.items(), components, strict=True)
    }


def _count_components(mask: NDArray[Any], wanted: Sequence[Sequence[int]], size: int) -> list[int]:
    """Connected components of each union of labels: single labels in one count, each region in its own."""
    tables = [np.arange(size)]
    for values in wanted:
        if len(values) > 1:
            tables.append(np.zeros(size, np.intp))
            tables[-1][list(values)] = 1
    single, *regions = count_components(mask, tables)
    rest = iter(regions)
    return [int(single[v[0]]) if len(v) == 1 else int(next(rest)[1]) for v in wanted]


def _at_border(mask: NDArray[Any], size: int) -> NDArray[np.bool_]:
    """Which labels (size,) lie in the first or last plane of an axis of several planes."""
    found = np.zeros(size, bool)
    for axis, planes in enumerate(mask.shape):
        if planes > 1:
            found[mask.take((0, -1), axis).ravel()] = True
    return found


@dataclass(frozen=True, kw_only=True)
class TrainingRange:
    """The range of the training set; what is unknown is not compared."""

    spacing_mm: tuple[tuple[float, float], ...] = ()
    """Smallest and largest spacing along z, y, x."""
    extent_mm: tuple[tuple[float, float], ...] = ()
    """Smallest and largest extent of a volume along z, y, x."""
    intensities: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    """Channel -> percentiles 0.5 and 99.5 of the foreground, for channels in physical units."""
    volumes_ml: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Label -> smallest and largest volume."""

    @property
    def not_compared(self) -> tuple[str, ...]:
        """What is not compared with the training set in any case, as sentences for the report."""
        sentences = []
        if not (self.spacing_mm and self.extent_mm):
            sentences.append(
                "spacing and extent are not compared with the training set: the model comes without its "
                "fingerprint"
            )
        if not self.volumes_ml:
            sentences.append(
                "volumes are not compared with the training set: the model comes without them "
                "('dinomed3d package --training-labels' adds them)"
            )
        return tuple(sentences)

    @classmethod
    def of(cls, model: Model) -> TrainingRange:
        """Take the range from nnU-Net's fingerprint and from the label volumes of a package."""
        fingerprint = model.fingerprint or {}
        spacings = _table(fingerprint.get("spacings"))
        shapes = _table(fingerprint.get("shapes_after_crop"))
        usable = spacings.size > 0 and spacings.shape == shapes.shape
        schemes = model.settings["normalization_schemes"]
        known = fingerprint.get("foreground_intensity_properties_per_channel")
        percentiles = {
            number: _percentiles(known, number)
            for number, scheme in enumerate(schemes)
            if scheme == "CTNormalization"
        }
        volumes = model.label_volumes_ml or {}
        return cls(
            spacing_mm=_ranges(spacings) if usable else (),
            extent_mm=_ranges(spacings * shapes) if usable else (),
            intensities={n: found for n, found in percentiles.items() if found is not None},
            volumes_ml={name: (least, most) for name, (least, most) in volumes.items()},
        )


def _percentiles(known: Any, number: int) -> tuple[float, float] | None:
    """Percentiles 0.5 and 99.5 of a channel; None if they are missing or malformed."""
    try:
        channel = known[str(number)]
        low, high = float(channel["percentile_00_5"]), float(channel["percentile_99_5"])
    except (TypeError, ValueError, KeyError, IndexError, OverflowError):
        return None
    return (low, high) if low <= high else None


def _table(rows: Any) -> NDArray[np.float64]:
    """(cases, 3) numbers; (0, 3) if they are malformed."""
    try:
        return np.array(rows, float).reshape(len(rows), 3)
    except (TypeError, ValueError, OverflowError):
        return np.zeros((0, 3))


def _ranges(values: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    return tuple((float(a), float(b)) for a, b in zip(values.min(0), values.max(0), strict=True))


def flags(
    labels: Mapping[str, Mapping[str, Any]],
    training: TrainingRange,
    *,
    channels: Sequence[NDArray[Any]],
    mask: NDArray[Any],
    spacing_mm: Sequence[float],
    certainty: float | None,
    axes: Sequence[int] = (0, 1, 2),
) -> list[str]:
    """List what a person should review, as short sentences.

    Args:
        labels: as `measure` gives them.
        training: ranges to compare with.
        channels: of the scan, (Z, Y, X) each.
        mask: (Z, Y, X).
        spacing_mm: of the scan, (z, y, x).
        certainty: mean probability over the foreground, None without any.
        axes: the stored axes (z, y, x = 0, 1, 2) that are the model's z, y, x; not (0, 1, 2) if the
            volume is reoriented for the model. Sentences name the model's axes.
    """
    found = []
    if not any(entry["voxels"] for entry in labels.values()):
        found.append("empty mask: no voxel was labelled")
    for name, entry in labels.items():
        least, most = training.volumes_ml.get(name, (0.0, np.inf))
        ml = entry["volume_ml"]
        if entry["voxels"] and (ml * VOLUME_RATIO < least or ml > most * VOLUME_RATIO):
            found.append(f"{name}: {ml:.4g} ml, in training {least:.4g} to {most:.4g} ml")
        if not entry["voxels"] and least > 0:
            found.append(
                f"{name}: not found; in training every scan had it, at least {least:.4g} ml"
            )
    spacing = [spacing_mm[axis] for axis in axes]
    extent = [mask.shape[axis] * spacing_mm[axis] for axis in axes]
    found += _outside("spacing", spacing, training.spacing_mm, SPACING_RATIO)
    found += _outside("extent", extent, training.extent_mm, EXTENT_RATIO)
    for number, (low, high) in training.intensities.items():
        values = _foreground(channels[number], mask)
        middle = float(np.median(values)) if len(values) else None
        if middle is not None and (middle < low or middle > high):  # NaN compares False
            found.append(
                f"intensity: the labelled voxels of channel {number} have a median of {middle:.4g}, in "
                f"training {low:.4g} to {high:.4g}; is it in the same unit (Hounsfield)?"
            )
    if certainty is not None and certainty < LOW_CERTAINTY:
        found.append(f"low certainty: {certainty:.2f} on average where something was labelled")
    return found


def _outside(
    what: str, values: Sequence[float], ranges: Sequence[tuple[float, float]], ratio: float
) -> list[str]:
    sentences = []
    for axis, value, (least, most) in zip("zyx", values, ranges, strict=False):
        if value * ratio < least or value > most * ratio:
            sentences.append(
                f"{what} along {axis}: {value:.4g} mm, in training {least:.4g} to {most:.4g} mm"
            )
    return sentences


def _foreground(image: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
    """Finite intensities of labelled voxels, of a subset of the planes where there are many."""
    planes = [z for z, plane in enumerate(mask) if plane.any()]
    step = 1 + len(planes) * mask[0].size // SAMPLED_VOXELS
    some = planes[::step]
    if not some:
        return np.zeros(0)
    values = np.concatenate([image[z][mask[z] > 0] for z in some])
    return values[np.isfinite(values)]
