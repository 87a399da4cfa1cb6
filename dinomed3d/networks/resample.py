"""Resampling of a token volume to the grid of a CNN level, one axis at a time.

Both grids begin at the same edge of the patch; only the sizes of their cells differ. Three small matrix
products do it on every device, for tokens that are finer or coarser than the level, and by one rule for depth
and plane.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def axis_weights(cells: int, cell: int, level_cells: int, level_cell: int) -> Tensor:
    """Weights with which the cells of one axis make up those of a level.

    Linear interpolation between the centres of cells where the level is finer; a triangle as wide as the
    level's cells, which averages, where it is coarser. Beyond the outermost centres the end is repeated.

    Args:
        cells: number of cells to read.
        cell: size of one, voxels.
        level_cells: number of cells of the level.
        level_cell: size of one, voxels.

    Returns:
        (level_cells, cells) float32; each row sums to 1.
    """
    centres = (torch.arange(level_cells) + 0.5) * (level_cell / cell) - 0.5  # in cells to read
    centres = centres.clamp(0, cells - 1)
    distance = (centres[:, None] - torch.arange(cells)).abs()
    weights = (1 - distance / max(1.0, level_cell / cell)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def resample(
    tokens: Tensor, *, cell: Sequence[int], size: Sequence[int], level_cell: Sequence[int]
) -> Tensor:
    """Resample a volume of features.

    Args:
        tokens: (B, C, d, h, w).
        cell: size of a cell along each axis, voxels.
        size: (D', H', W') cells of the level.
        level_cell: size of a cell of the level along each axis, voxels.

    Returns:
        (B, C, D', H', W').
    """
    axes = zip(tokens.shape[2:], cell, size, level_cell, strict=True)
    depth, rows, columns = (axis_weights(*axis).to(tokens) for axis in axes)
    tokens = torch.einsum("bcdhw,vw->bcdhv", tokens, columns)
    tokens = torch.einsum("bcdhw,vh->bcdvw", tokens, rows)
    return torch.einsum("bcdhw,vd->bcvhw", tokens, depth)
