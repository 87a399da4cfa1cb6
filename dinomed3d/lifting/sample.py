"""Reading feature maps at image positions."""

from __future__ import annotations

import torch
from torch import Tensor

from dinomed3d.lifting.encoder import FeatureMap


def sample_bilinear(features: FeatureMap, view: int | Tensor, uv: Tensor) -> Tensor:
    """Read feature maps bilinearly; beyond its outermost cells these are repeated.

    Args:
        features: of a set of images.
        view: which image; or (N,) integers, an image for each position.
        uv: (N, 2) positions (x, y) in pixels; the centre of the first pixel is (0.5, 0.5).

    Returns:
        (N, C).

    Source: Jaderberg 2015, arXiv:1506.02025, eq. 5.
    """
    height, width = features.values.shape[-2:]
    # Half precision would do for the features, but not for positions in them.
    exact = torch.promote_types(features.values.dtype, torch.float32)
    column, row = (uv / features.stride - 0.5).unbind(-1)
    column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    left, top = column.detach().floor(), row.detach().floor()
    across, down = (column - left).to(exact)[:, None], (row - top).to(exact)[:, None]
    left, top = left.long(), top.long()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)

    def at(row: Tensor, column: Tensor) -> Tensor:
        return _cells(features, view, row, column).to(exact)

    upper = torch.lerp(at(top, left), at(top, right), across)
    lower = torch.lerp(at(bottom, left), at(bottom, right), across)
    return torch.lerp(upper, lower, down).to(features.values.dtype)


def sample_nearest(features: FeatureMap, view: int | Tensor, uv: Tensor) -> Tensor:
    """Read the cell that a position falls into. Arguments and result as `sample_bilinear`."""
    height, width = features.values.shape[-2:]
    column, row = (uv / features.stride).floor().long().unbind(-1)
    return _cells(features, view, row.clamp(0, height - 1), column.clamp(0, width - 1))


def _cells(features: FeatureMap, view: int | Tensor, row: Tensor, column: Tensor) -> Tensor:
    """(N, C) of the cells at (N,) rows and columns; whole rows of memory if channels lie last."""
    values = features.values
    height, width = values.shape[-2:]
    cell = row * width + column
    if isinstance(view, Tensor):
        cell = cell + view * (height * width)
    else:
        values = values[view : view + 1]
    return values.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, cell)
