"""Cells to points on a CPU, in one pass over memory: sums of cells, each point's written where it belongs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dinomed3d.lifting import on_devices
from dinomed3d.lifting.encoder import FeatureMap
from dinomed3d.lifting.fusion import Mean, ViewFusion
from dinomed3d.lifting.sample import cells_read, sample_bilinear, sample_nearest


def in_one_pass(fuse: ViewFusion, sample: object, values: Tensor) -> bool:
    """Whether ``add_views`` does what ``sample`` and ``fuse`` do one view after another, to rounding."""
    return type(fuse) is Mean and sample in (sample_bilinear, sample_nearest) and _summed(values)


def copies_cells(sample: object, values: Tensor) -> bool:
    """Whether ``copy_cells`` does what ``sample`` does, to the bit."""
    return sample is sample_nearest and _summed(values)


def _summed(values: Tensor) -> bool:
    return (
        on_devices.is_cpu(values.device)
        and values.dtype == torch.float32
        and not (torch.is_grad_enabled() and values.requires_grad)
    )


def copy_cells(out: Tensor, maps: FeatureMap, view: Tensor, uv: Tensor, step: int) -> None:
    """Copy the cell that each of N points falls into.

    Args:
        out: (N, C) that are all written; 0 where a point has no view.
        maps: (V, C, h, w), channels last in memory.
        view: (N,) int64 of each point; below 0: none.
        uv: (N, 2) pixels in that view.
        step: points at a time.
    """
    table = maps.values.permute(0, 2, 3, 1).flatten(0, 2)
    for rows, some, at in zip(out.split(step), view.split(step), uv.split(step), strict=True):
        seen = some >= 0
        index = torch.nonzero(seen).squeeze(1)
        here = at.index_select(0, index)
        cells, _ = cells_read(sample_nearest, maps, some.index_select(0, index), here)
        starts = F.pad(seen.cumsum(0), (1, 0))  # a bag of one cell, or of none
        rows.copy_(
            F.embedding_bag(cells.flatten(), table, starts, mode="sum", include_last_offset=True)
        )


def add_views(
    fuse: Mean,
    sample: object,
    maps: FeatureMap,
    project: Callable[[int], tuple[Tensor, Tensor, Tensor]],
    rows: slice,
    step: int,
    *,
    first: bool,
) -> None:
    """Add to the mean of some points what the V views of these maps show of them.

    Args:
        fuse: the mean.
        sample: how maps are read.
        maps: (V, C, h, w), channels last in memory.
        project: gives (n, 2) pixels and (n,) visible of these points in one of the views.
        rows: the n points.
        step: how many are read at a time.
        first: whether these points have nothing yet.
    """
    seen = [project(view) for view in range(len(maps.values))]
    visible = torch.stack([shown for _, shown, _ in seen], 1)  # (n, V)
    pixels = torch.stack([uv for uv, _, _ in seen], 1).flatten(0, 1)  # (n V, 2)
    pair = torch.nonzero(visible.flatten()).squeeze(1)  # by point, then by view
    point = torch.div(pair, len(seen), rounding_mode="floor")
    cells, weights = cells_read(
        sample, maps, pair - point * len(seen), pixels.index_select(0, pair)
    )
    count = visible.sum(1)
    starts = F.pad(count.cumsum(0), (1, 0))
    each = cells.shape[1]
    if weights is not None:
        weights = (weights / count.index_select(0, point)[:, None]).flatten()
    cells, ends = cells.flatten(), each * starts
    table = maps.values.permute(0, 2, 3, 1).flatten(0, 2)
    bounds = [*range(0, len(count), step), len(count)]
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        begin, end = (int(ends[at]) for at in (low, high))
        means = F.embedding_bag(
            cells[begin:end],
            table,
            ends[low : high + 1] - begin,
            mode="mean" if weights is None else "sum",
            per_sample_weights=None if weights is None else weights[begin:end],
            include_last_offset=True,
        )
        some = slice(rows.start + low, rows.start + high)
        fuse.merge(some, means, count[low:high], first=first)
