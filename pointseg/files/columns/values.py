"""Values of a file's columns in the form that scenes have."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pointseg.scene import IGNORE

SH_C0 = 0.28209479177387814
"""1 / (2 sqrt(pi)), the constant spherical harmonic: 3D Gaussians store colours as multiples of it around 0.5."""


class Range(NamedTuple):
    """The values that become 0 and 1."""

    low: float
    high: float


def to_color(values: NDArray[Any], largest: float) -> NDArray[np.float32]:
    """(N, 3) colours of a file as float32, 0 to 255; NaN becomes 0.

    Args:
        values: as the file has them.
        largest: the one that becomes 255, as all above it do.
    """
    color = finite_numbers(values)
    if largest != 255:
        color *= np.float32(255 / largest)
    return np.clip(color, 0, 255, out=color)


def color_of_harmonics(values: NDArray[Any]) -> NDArray[np.float32]:
    """(N, 3) colours of 3D Gaussians, mostly 0 to 1, from their coefficients of the constant harmonic.

    Source: Kerbl 2023, 3D Gaussian Splatting, arXiv:2308.04079, reference code ``SH2RGB``.
    """
    return np.float32(0.5) + np.float32(SH_C0) * as_float32(values)


def to_normal(values: NDArray[Any]) -> NDArray[np.float32]:
    """(N, 3) normals of a file with unit length; what has no direction becomes 0."""
    normal = finite_numbers(values).astype(np.float64)  # whose squares float32 may not hold
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return np.divide(normal, length, out=np.zeros_like(normal), where=length > 0).astype(np.float32)


def to_strength(values: NDArray[Any], span: Range) -> NDArray[np.float32]:
    """(N,) intensities of a file as (N, 1) float32, 0 to 1; what is no number becomes 0.

    Args:
        values: as the file has them.
        span: which become 0 and 1, as all beyond them do.
    """
    low, high = np.float32(span.low), np.float32(span.high)
    numbers = finite_numbers(values, instead=span.low)
    return np.clip((numbers - low) / (high - low), 0, 1)[:, None]


def to_returns(number: NDArray[Any], count: NDArray[Any]) -> NDArray[np.float32]:
    """(N, 2) echoes of laser pulses: which one of its pulse a point is, and how many there were.

    Leaves let part of a pulse through, roofs and ground do not: the last or only echo has 1 in the first
    column, the only one 1 in the second, too. Counts below the number, such as 0 where nobody wrote it, are
    taken to be the number.

    Args:
        number: (N,) 1 for the first echo of a pulse.
        count: (N,) echoes of the pulse.

    Returns:
        number / count and 1 / count.
    """
    which = np.maximum(finite_numbers(number), 1)
    many = np.maximum(finite_numbers(count), which)
    return np.stack([which / many, 1 / many], axis=1)


def to_labels(values: NDArray[Any]) -> NDArray[np.int32] | None:
    """(N,) labels of a file as int32, NaN as ``IGNORE``; None if they are not whole numbers."""
    if values.dtype.kind == "f":
        missing = np.isnan(values)
        whole = np.where(missing, IGNORE, values) if missing.any() else values
        if (np.floor(whole) != whole).any():
            return None
        values = whole
    elif values.dtype.kind not in "iub":
        return None
    limits = np.iinfo(np.int32)
    if len(values) and (values.min() < limits.min or values.max() > limits.max):
        return None
    return values.astype(np.int32)


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """As float32; what that does not hold becomes infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def finite_numbers(values: NDArray[Any], *, instead: float = 0.0) -> NDArray[np.float32]:
    """As float32, ``instead`` of what is not a finite number then."""
    return np.nan_to_num(
        as_float32(values), copy=False, nan=instead, posinf=instead, neginf=instead
    )
