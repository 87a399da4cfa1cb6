"""Voxel values as they are read: the type a volume is kept in, and values that are refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dinomed3d.inference.case import CaseError

CHUNK_BYTES = 16 * 2**20
"""How much of a volume is converted and checked at once."""


def kept_type(stored: DTypeLike, name: str, *, scaled: bool = False) -> np.dtype[Any]:
    """The type a volume is kept in: as stored, but float32 if scaled or wider than 32 bits.

    Raises:
        CaseError: Complex numbers, colours, or another type that is not one grey value per voxel.
    """
    stored = np.dtype(stored)
    if stored.kind == "b":
        return np.dtype(np.uint8)
    if stored.kind not in "iuf" or stored.itemsize > 8:
        kind = "complex numbers" if stored.kind == "c" else "colours" if stored.names else stored
        raise CaseError(
            f"{name}: its voxels must be grey values, they are {kind}; convert it to one number "
            "per voxel"
        )
    if scaled or stored.itemsize == 8:
        return np.dtype(np.float32)
    return stored.newbyteorder("=")


def slices_per_chunk(slice_bytes: int) -> int:
    """How many slices of this size make a chunk, >= 1."""
    return max(1, CHUNK_BYTES // max(1, slice_bytes))


def fill(
    out: NDArray[Any],
    chunks: Iterable[NDArray[Any]],
    name: str,
    *,
    scale: tuple[float, float] | None = None,
) -> list[str]:
    """Convert a volume into the type it is kept in, chunk by chunk, and check its values.

    Args:
        out: (Z, Y, X), is filled; chunks that are already part of it stay as they are.
        chunks: Slices (z, Y, X) from the first to the last.
        name: The file, for messages.
        scale: Slope and intercept, applied in float64 and rounded once, as nibabel does.

    Returns:
        A note if all voxels are equal.

    Raises:
        CaseError: Voxels are NaN or infinite.
    """
    start = not_numbers = infinite = 0
    constant = True
    for chunk in chunks:
        part = out[start : start + len(chunk)]
        start += len(chunk)
        if not np.may_share_memory(part, chunk):
            with np.errstate(over="ignore", invalid="ignore"):  # infinity is counted below
                wide = chunk if scale is None else chunk.astype(np.float64) * scale[0] + scale[1]
                part[...] = wide
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            not_numbers += int(np.isnan(part).sum())
            infinite += int(np.isinf(part).sum())
        constant = constant and bool((part == out.flat[0]).all())
    if not_numbers or infinite:
        raise CaseError(
            f"{name}: its voxels must be finite, {not_numbers} are NaN and {infinite} infinite; "
            "replace them, for instance by the value of air"
        )
    return [f"all voxels have the value {out.flat[0]}"] if constant else []


def checked_volume(voxels: NDArray[Any], name: str) -> tuple[NDArray[Any], list[str]]:
    """A volume that is in memory already: in the type it is kept in, and notes about it.

    Args:
        voxels: (Z, Y, X); returned itself where its type may stay.
        name: The file, for messages.

    Raises:
        CaseError: Not grey values, or not finite.
    """
    kept = kept_type(voxels.dtype, name)
    out = voxels if voxels.dtype == kept else np.empty(voxels.shape, kept)
    return out, fill(out, _chunks(voxels), name)


def _chunks(voxels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    step = slices_per_chunk(voxels[0].nbytes)
    for start in range(0, len(voxels), step):
        yield voxels[start : start + step]
