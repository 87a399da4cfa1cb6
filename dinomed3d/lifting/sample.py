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
    (left, right), (top, bottom), across, down = _around(features, uv)
    exact = across.dtype

    def at(row: Tensor, column: Tensor) -> Tensor:
        return _cells(features, view, row, column).to(exact)

    upper = torch.lerp(at(top, left), at(top, right), across)
    lower = torch.lerp(at(bottom, left), at(bottom, right), across)
    return torch.lerp(upper, lower, down).to(features.values.dtype)


def sample_nearest(features: FeatureMap, view: int | Tensor, uv: Tensor) -> Tensor:
    """Read the cell that a position falls into. Arguments and result as `sample_bilinear`."""
    return _cells(features, view, *_nearest(features, uv))


def cells_read(
    sample: object, features: FeatureMap, view: Tensor, uv: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Which cells ``sample_bilinear`` or ``sample_nearest`` reads, instead of what it reads there.

    Args:
        sample: one of the two.
        features: V maps.
        view: (N,) int64 which image each position is in.
        uv: as there.

    Returns:
        (N, 4) or (N, 1) int64 cells, numbered by image, row and column; (N, 4) how much each counts, None
        where there is one.
    """
    height, width = features.values.shape[-2:]
    first = view * (height * width)
    if sample is sample_nearest:
        row, column = _nearest(features, uv)
        return (first + row * width + column)[:, None], None
    (left, right), (top, bottom), across, down = _around(features, uv)
    upper, lower = first + top * width, first + bottom * width
    cells = torch.stack([upper + left, upper + right, lower + left, lower + right], 1)
    sides = torch.cat([1 - across, across], 1)
    return cells, torch.cat([sides * (1 - down), sides * down], 1)


def _nearest(features: FeatureMap, uv: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) rows and columns of the cells that positions fall into."""
    height, width = features.values.shape[-2:]
    column, row = (uv / features.stride).floor().long().unbind(-1)
    return row.clamp(0, height - 1), column.clamp(0, width - 1)


def _around(
    features: FeatureMap, uv: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor, Tensor]:
    """Columns left and right of positions, rows above and below; (N, 1) how far along positions are."""
    height, width = features.values.shape[-2:]
    # Half precision would do for the features, but not for positions in them.
    exact = torch.promote_types(features.values.dtype, torch.float32)
    column, row = (uv / features.stride - 0.5).unbind(-1)
    column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    left, top = column.detach().floor(), row.detach().floor()
    across, down = (column - left).to(exact)[:, None], (row - top).to(exact)[:, None]
    left, top = left.long(), top.long()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    return (left, right), (top, bottom), across, down


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
