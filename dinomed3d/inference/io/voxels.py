"""Voxel values on their way in: the type they are kept in, and what must not be among them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dinomed3d.inference.case import CaseError

CHUNK_BYTES = 16 * 2**20
"""How much of a volume is converted and looked at in one go."""


def kept_type(stored: DTypeLike, name: str, *, scaled: bool = False) -> np.dtype[Any]:
    """The type a volume is kept in: as stored, but float32 if scaled or wider than 32 bits.

    Raises:
        CaseError: Complex, colour, or another type that is no number on a grey scale.
    """
    stored = np.dtype(stored)
    if stored.kind == "b":
        return np.dtype(np.uint8)
    if stored.kind not in "iuf" or stored.itemsize > 8:
        told = "complex numbers" if stored.kind == "c" else "colours" if stored.names else stored
        raise CaseError(
            f"{name}: its voxels must be grey values, they are {told}; convert it to one number "
            "per voxel"
        )
    if scaled or stored.itemsize == 8:
        return np.dtype(np.float32)
    return stored.newbyteorder("=")


def planes_at_once(plane_bytes: int) -> int:
    """How many slices of this size make a chunk, >= 1."""
    return max(1, CHUNK_BYTES // max(1, plane_bytes))


class Watch:
    """Looks at every chunk of a volume that passes by: NaN, infinity, and whether all are equal."""

    def __init__(self) -> None:
        self.not_numbers = 0
        self.infinite = 0
        self._first: Any = None
        self._constant = True

    def see(self, chunk: NDArray[Any]) -> None:
        """Count what is not finite in a chunk."""
        if chunk.dtype.kind == "f":
            lost = chunk.size - int(np.count_nonzero(np.isfinite(chunk)))
            if lost:
                nans = int(np.count_nonzero(np.isnan(chunk)))
                self.not_numbers += nans
                self.infinite += lost - nans
        if self._constant:
            self._first = chunk.flat[0] if self._first is None else self._first
            self._constant = bool((chunk == self._first).all())

    def notes(self, name: str) -> list[str]:
        """What is to be told once all has been seen.

        Raises:
            CaseError: There were voxels that are not finite.
        """
        if self.not_numbers or self.infinite:
            raise CaseError(
                f"{name}: its voxels must be finite, {self.not_numbers} are NaN and "
                f"{self.infinite} infinite; replace them, for instance by the value of air"
            )
        return [f"all voxels have the value {self._first}"] if self._constant else []


def watched(voxels: NDArray[Any], name: str) -> tuple[NDArray[Any], list[str]]:
    """A volume that is in memory already: in the type it is kept in, and the notes about it.

    Args:
        voxels: (Z, Y, X); returned itself where its type may stay.
        name: The file, for messages.

    Raises:
        CaseError: Not grey values, or not finite.
    """
    kept = kept_type(voxels.dtype, name)
    result = voxels if voxels.dtype == kept else np.empty(voxels.shape, kept)
    watch = Watch()
    step = planes_at_once(voxels[0].nbytes)
    for start in range(0, len(voxels), step):
        chunk = result[start : start + step]
        if result is not voxels:
            with np.errstate(over="ignore"):  # what becomes infinite is counted as such
                chunk[...] = voxels[start : start + step]
        watch.see(chunk)
    return result, watch.notes(name)
