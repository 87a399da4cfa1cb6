"""What a mask holds, and what about it a person should look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from dinomed3d.inference.model import Model

LOW_CERTAINTY = 0.7
"""Mean probability of the foreground below which a person should look."""
SPACING_RATIO = 1.5
"""How far outside the training range of spacings is far."""
EXTENT_RATIO = 2.0
"""How far outside the training range of extents is far."""
VOLUME_RATIO = 1.25
"""How far outside the training range of a label's volume is far."""
PLANES_VOXELS = 8_000_000
"""Voxels whose intensities are looked at, about; of larger volumes only some planes."""


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
        whether it reaches the first or last plane of an axis of several planes, so that it may be cut off.
    """
    boxes = ndimage.find_objects(mask)
    measured = {}
    for name, value in labels.items():
        values = [value] if isinstance(value, int | np.integer) else list(value)
        if values == [0] or name == "ignore":
            continue
        there = [v for v in values if v > 0 and v <= len(boxes) and boxes[v - 1] is not None]
        box = _union([boxes[v - 1] for v in there])
        voxels = components = 0
        touches = False
        if box is not None:
            part = mask[box]
            inside = part == there[0] if len(there) == 1 else np.isin(part, there)
            voxels = int(np.count_nonzero(inside))
            components = int(ndimage.label(inside)[1])
            touches = any(
                size > 1 and (side.start == 0 or side.stop == size)
                for side, size in zip(box, mask.shape, strict=True)
            )
        measured[name] = {
            "value": values[0] if len(values) == 1 else values,
            "voxels": voxels,
            "volume_ml": round(voxels * voxel_ml, 4),
            "components": components,
            "touches_border": touches,
        }
    return measured


def _union(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...] | None:
    if not boxes:
        return None
    sides = zip(*boxes, strict=True)
    return tuple(slice(min(s.start for s in side), max(s.stop for s in side)) for side in sides)


@dataclass(frozen=True, kw_only=True)
class TrainingRange:
    """What a model has seen; what is not known is not judged."""

    spacing_mm: tuple[tuple[float, float], ...] = ()
    """Least and most for z, y, x."""
    extent_mm: tuple[tuple[float, float], ...] = ()
    """Least and most for z, y, x."""
    intensities: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    """Channel -> percentiles 0.5 and 99.5 of the foreground, for channels in physical units."""
    volumes_ml: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Label -> least and most."""

    @classmethod
    def of(cls, model: Model) -> TrainingRange:
        """From the fingerprint and what a package adds to it."""
        fingerprint = model.fingerprint or {}
        spacings = np.array(fingerprint.get("spacings", []), float)
        shapes = np.array(fingerprint.get("shapes_after_crop", []), float)
        usable = spacings.ndim == 2 and spacings.shape[-1] == 3 and spacings.shape == shapes.shape
        known = fingerprint.get("foreground_intensity_properties_per_channel", {})
        schemes = model.settings["normalization_schemes"]
        volumes = model.label_volumes_ml or {}
        return cls(
            spacing_mm=_ranges(spacings) if usable else (),
            extent_mm=_ranges(spacings * shapes) if usable else (),
            intensities={
                number: (
                    known[str(number)]["percentile_00_5"],
                    known[str(number)]["percentile_99_5"],
                )
                for number, scheme in enumerate(schemes)
                if scheme == "CTNormalization" and str(number) in known
            },
            volumes_ml={name: (least, most) for name, (least, most) in volumes.items()},
        )


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
) -> list[str]:
    """What a person should look at, as short sentences.

    Args:
        labels: as `measure` gives them.
        training: what the model has seen.
        channels: of the scan, (Z, Y, X) each.
        mask: (Z, Y, X).
        spacing_mm: of the scan, (z, y, x).
        certainty: mean probability over the foreground, None without any.
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
    extent = [n * s for n, s in zip(mask.shape, spacing_mm, strict=True)]
    found += _outside("spacing", spacing_mm, training.spacing_mm, SPACING_RATIO)
    found += _outside("extent", extent, training.extent_mm, EXTENT_RATIO)
    for number, (low, high) in training.intensities.items():
        values = _foreground(channels[number], mask)
        middle = float(np.median(values)) if len(values) else None
        if middle is not None and not low <= middle <= high:
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
    """Intensities where something is labelled, from some planes of a large volume."""
    step = max(1, mask.size // PLANES_VOXELS)
    values: NDArray[Any] = image[::step][mask[::step] > 0]
    return values
