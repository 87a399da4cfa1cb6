"""How each kind of network reads windows that have a halo and may be mirrored."""

from __future__ import annotations

import sys
from typing import Any, Protocol

from torch import Tensor, nn


class WindowNetwork(Protocol):
    """A network that predicts windows."""

    halo: int
    """Planes beyond both ends of a window that it can read."""

    def __call__(
        self,
        windows: Tensor,
        places: list[tuple[int, int, int]],
        flip: tuple[int, ...],
        *,
        halo: tuple[int, int],
    ) -> Tensor:
        """Predict windows that are mirrored already: (B, C, below + D + above, H, W) -> (B, heads, D, H, W)."""
        ...


class PlainNetwork:
    """A network that reads nothing beyond its window."""

    halo = 0

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(
        self,
        windows: Tensor,
        places: list[tuple[int, int, int]],
        flip: tuple[int, ...],
        *,
        halo: tuple[int, int],
    ) -> Tensor:
        """Predict windows without their halo."""
        logits: Tensor = self.network(windows.narrow(2, halo[0], windows.shape[2] - sum(halo)))
        return logits


class HaloNetwork:
    """A DinoMed3D, whose embedding reads the slices before and after a window."""

    def __init__(self, network: nn.Module, halo: int) -> None:
        self.network = network
        self.halo = halo

    def __call__(
        self,
        windows: Tensor,
        places: list[tuple[int, int, int]],
        flip: tuple[int, ...],
        *,
        halo: tuple[int, int],
    ) -> Tensor:
        """Predict windows with their halo."""
        logits: Tensor = self.network(windows, halo=halo)
        return logits


def window_network(network: nn.Module, *, compiler: Any = None) -> WindowNetwork:
    """The way in which a network predicts windows."""
    # importing DinoMed3D's encoders takes seconds; before that no network can be one
    if "dinomed3d.networks" not in sys.modules:
        return PlainNetwork(network)
    from dinomed3d.inference.nnunet.slice_feature_cache import (
        SliceFeatureCache,
        halo_of,
        is_cacheable,
    )
    from dinomed3d.networks import DinoMed3D

    if is_cacheable(network):
        return SliceFeatureCache(network, compiler=compiler)
    return (
        HaloNetwork(network, halo_of(network))
        if isinstance(network, DinoMed3D)
        else PlainNetwork(network)
    )
