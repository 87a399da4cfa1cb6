"""Resampling as nnU-Net does it, one axis after the other and a few slices at a time.

nnU-Net resamples whole volumes with splines on a regular grid. This operator is a product of one
matrix per axis, so it can be applied a few planes at a time, in float32, as matrix products: the same
numbers without float64 copies of the whole volume.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

SLAB_VOXELS = 8_000_000
"""About this many voxels are processed at a time: 32 MB in float32."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """From one regular grid to another with the same corners, by splines."""

    shape: tuple[int, int, int]
    """Shape of the input grid."""
    new_shape: tuple[int, int, int]
    """Shape of the output grid."""
    orders: tuple[int, int, int]
    """Order of the spline along each axis: 0 nearest, 1 linear, 3 cubic."""
    separate: int | None = None
    """The axis whose planes are resampled separately; None resamples the volume as a whole."""
    clip: bool = True
    """Whether the result is clipped to the range of the input (of each plane, where separate)."""

    @property
    def is_identity(self) -> bool:
        """Whether both grids are the same."""
        return self.shape == self.new_shape


def new_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], new_spacing_mm: Sequence[float]
) -> tuple[int, int, int]:
    """Shape of the same extent at another spacing, rounded exactly as nnU-Net rounds.

    Source: nnunetv2 compute_new_shape; the order of its multiplications decides halves.
    """
    a, b, c = (
        round(old / new * n) for n, old, new in zip(shape, spacing_mm, new_spacing_mm, strict=True)
    )
    return (a, b, c)


def axis_matrix(size: int, new_size: int, order: int) -> Tensor:
    """`axis_weights` as a tensor that shares their memory."""
    return torch.from_numpy(axis_weights(size, new_size, order))


@lru_cache(maxsize=16)
def axis_weights(size: int, new_size: int, order: int) -> NDArray[np.float32]:
    """The resampling of one axis as a matrix.

    Args:
        size: voxels before.
        new_size: voxels after.
        order: of the spline, 0 to 5.

    Returns:
        (new_size, size) float32; both grids have the same ends, edge values are repeated.

    Source: scipy.ndimage.zoom with grid_mode=True, mode="nearest", which skimage's resize calls.
    """
    if order == 0:
        matrix = np.zeros((new_size, size))
        matrix[np.arange(new_size), nearest(size, new_size)] = 1
    else:
        # the columns are the responses to unit impulses; the second axis keeps its size
        zoom = (new_size / size, 1)
        matrix = ndimage.zoom(np.eye(size), zoom, order=order, mode="nearest", grid_mode=True)
    return matrix.astype(np.float32)


def nearest(size: int, new_size: int) -> NDArray[np.int64]:
    """(new_size,) for each output voxel, the input voxel with the nearest centre."""
    centres = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
    return np.clip(np.floor(centres + 0.5).astype(np.int64), 0, size - 1)


def linear(
    size: int, new_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each output voxel: the input voxels on its two sides, and the weight of the second.

    Returns:
        (new_size,) first, second, weight in [0, 1); at the edges first == second.
    """
    centres = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
    centres = np.clip(centres, 0, size - 1)
    first = np.floor(centres).astype(np.int64)
    weight = (centres - first).astype(np.float32)
    second = np.minimum(first + (weight > 0), size - 1)
    return first, second, weight


def resample(
    read: Callable[[slice], Tensor],
    resampling: Resampling,
    *,
    out: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Resample a volume that is read a few planes at a time.

    Args:
        read: from a slice along axis 0 to planes (k, Y, X) float32 on the device.
        resampling: with `separate` None or 0 (see `resample_array` for other axes).
        out: the result, float32 of `new_shape`; None allocates it on the CPU.
        device: that resamples; it holds all planes at once where their number changes. None for the CPU.

    Returns:
        (Z', Y', X') float32.
    """
    (depth, height, width), (new_depth, new_height, new_width) = (
        resampling.shape,
        resampling.new_shape,
    )
    out = torch.empty(resampling.new_shape) if out is None else out
    rows = columns = None
    if height != new_height:
        rows = axis_matrix(height, new_height, resampling.orders[1]).to(device)
    if width != new_width:
        columns = axis_matrix(width, new_width, resampling.orders[2]).to(device)
    same_depth = depth == new_depth
    planes = out if same_depth else torch.empty((depth, new_height, new_width), device=device)
    ranges: list[Tensor] = []
    step = max(1, SLAB_VOXELS // (height * width))
    clip = resampling.clip and not resampling.is_identity
    for start in range(0, depth, step):
        slab = read(slice(start, min(start + step, depth)))
        ends: tuple[Tensor, Tensor] | None = None
        if clip and resampling.separate is None:
            ranges += slab.aminmax()
        elif clip:
            ends = slab.amin((1, 2), keepdim=True), slab.amax((1, 2), keepdim=True)
        if rows is not None:
            slab = rows @ slab
        if columns is not None:
            slab = slab @ columns.T
        if ends is not None:
            slab = slab.clamp(*ends)
        planes[start : start + step] = slab
    if not same_depth:
        _along_depth(planes, resampling.orders[0], out)
    if ranges:
        values = torch.stack(ranges).tolist()  # only here the host waits for the device
        out.clamp_(min(values), max(values))
    return out


def _along_depth(planes: Tensor, order: int, out: Tensor) -> None:
    """Resample axis 0 of (Z, Y, X) into (Z', Y, X) on any device, a few planes at a time."""
    flat, result = planes.flatten(1), out.flatten(1)
    step = max(1, SLAB_VOXELS // flat.shape[1])
    matrix = axis_matrix(len(planes), len(out), order)
    # the weights of a spline fall fourfold per voxel: distant ones vanish in float32
    counts = np.abs(axis_weights(len(planes), len(out), order)) > 1e-9
    for start in range(0, len(out), step):
        block, part = matrix[start : start + step], result[start : start + step]
        if order == 0:
            part.copy_(flat[block.argmax(1).to(flat.device)])
            continue
        used = np.flatnonzero(counts[start : start + step].any(0))
        span = slice(int(used[0]), int(used[-1]) + 1)
        if flat.device == part.device:
            torch.matmul(block[:, span], flat[span], out=part)
        else:
            part.copy_(block[:, span].to(flat.device) @ flat[span])


def resample_array(
    read: Callable[[slice], Tensor],
    resampling: Resampling,
    axis: int | None,
    *,
    device: torch.device | None = None,
) -> Tensor:
    """Like `resample`, with planes across any axis.

    Args:
        read: from a slice along `axis` to planes (k, the other axes in order) float32.
        resampling: in the axes of the volume.
        axis: planes are read across it: `resampling.separate`, or None for 0.
        device: see `resample`.

    Returns:
        (Z', Y', X') float32.
    """
    axis = axis or 0
    order = [axis, *(a for a in range(3) if a != axis)]

    def permuted(values: tuple[int, int, int]) -> tuple[int, int, int]:
        return (values[order[0]], values[order[1]], values[order[2]])

    across = Resampling(
        shape=permuted(resampling.shape),
        new_shape=permuted(resampling.new_shape),
        orders=permuted(resampling.orders),
        separate=None if resampling.separate is None else 0,
        clip=resampling.clip,
    )
    result = resample(read, across, device=device)
    return result if axis == 0 else result.movedim(0, axis).contiguous()
