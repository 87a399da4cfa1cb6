"""Reading a feature map at image positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dinomed3d.lifting.encoder import FeatureMap


def sample_bilinear(features: FeatureMap, view: int, uv: Tensor) -> Tensor:
    """Read one image's feature map bilinearly; beyond its outermost cells these are repeated.

    Args:
        features: of a set of images.
        view: which image.
        uv: (N, 2) positions (x, y) in pixels; the centre of the first pixel is (0.5, 0.5).

    Returns:
        (N, C).

    Source: Jaderberg 2015, arXiv:1506.02025, eq. 5.
    """
    height, width = features.values.shape[-2:]
    extent = uv.new_tensor([width * features.stride, height * features.stride])
    # Half precision would do for the features, but not for positions in them.
    exact = torch.promote_types(features.values.dtype, torch.float32)
    grid = (2 * uv / extent - 1)[None, :, None].to(exact)  # (1, N, 1, 2) in [-1, 1]
    values = F.grid_sample(
        features.values[view, None].to(exact), grid, padding_mode="border", align_corners=False
    )
    return values[0, :, :, 0].T.to(features.values.dtype)


def sample_nearest(features: FeatureMap, view: int, uv: Tensor) -> Tensor:
    """Read the cell that a position falls into. Arguments and result as `sample_bilinear`."""
    height, width = features.values.shape[-2:]
    column, row = (uv / features.stride).floor().long().unbind(-1)
    return features.values[view, :, row.clamp(0, height - 1), column.clamp(0, width - 1)].T
