"""The way through the core: encode -> project -> sample -> fuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from dinomed3d.lifting.encoder import FeatureMap
from dinomed3d.lifting.fuse import Fuse
from dinomed3d.lifting.sample import sample_bilinear


class Views(Protocol):
    """What a slice stack and a set of posed cameras have in common."""

    def __len__(self) -> int:
        """Number of views."""
        ...

    def project(self, view: int, sites: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of (N, 3) sites: (N, 2) pixels (x, y); (N,) visible; (N,) distance from the view."""
        ...


def lift(
    features: FeatureMap,
    views: Views,
    sites: Tensor,
    *,
    fuse: Fuse,
    sample: Callable[[FeatureMap, int, Tensor], Tensor] = sample_bilinear,
) -> tuple[Tensor, Tensor]:
    """One feature per 3D site, and whether any view saw it.

    Args:
        features: of the V images of the views, in their order.
        views: the geometry.
        sites: (N, 3) positions in the coordinates of the views.
        fuse: how several views become one feature.
        sample: how a map is read.

    Returns:
        (N, C) features, 0 where unseen; (N,) seen.

    Raises:
        ValueError: not one image per view, or `sites` is not (N, 3).
    """
    if len(views) != features.values.shape[0]:
        raise ValueError(
            f"lift: {len(views)} views but features of {features.values.shape[0]} images"
        )
    if sites.ndim != 2 or sites.shape[1] != 3:
        raise ValueError(f"lift: 'sites' must be (N, 3), got {tuple(sites.shape)}")
    fuse.start(sites.shape[0], features.values.shape[1], like=features.values)
    for view in range(len(views)):
        uv, visible, distance = views.project(view, sites)
        index = torch.nonzero(visible).squeeze(1)
        fuse.add(index, sample(features, view, uv[index]), distance[index])
    return fuse.result()
