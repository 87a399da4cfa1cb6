"""Other libraries for sparse convolution, where they are installed, in place of ours."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import sparse_convolution
import torch
from sparse_convolution import PeerConvolution, PeerGrid
from torch import Tensor, nn

from pointseg.cloud import Cloud
from pointseg.ops.convolution.layers import SubmanifoldConv3d

LIBRARIES = ("spconv_triton", "spconv")
"""Names under which they are imported: the port to Triton, a wheel of Python alone, and the original."""


def is_there(library: str) -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec(library) is not None


def peer_convolution(library: str, cloud: Cloud, weight: Tensor) -> Callable[[Tensor], Tensor]:
    """One submanifold convolution by a library, its index pairs known.

    Args:
        library: of `LIBRARIES`.
        cloud: the voxels.
        weight: (Cout, 3, 3, 3, Cin).
    """
    sparse_convolution.LIBRARY = f"{library}.pytorch"
    ours = SubmanifoldConv3d(weight.shape[-1], weight.shape[0], 3, bias=False)
    layer = PeerConvolution(ours.to(weight)).to(weight.device).eval()
    layer.layer.weight = nn.Parameter(weight, requires_grad=False)
    grid = PeerGrid(cloud.grid_coord, cloud.batch)

    def run(feat: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = layer(feat, grid)
        return out

    return run


def peer_network(library: str, network: nn.Module) -> nn.Module:
    """A network of ours with its sparse convolutions, and what belongs to them, replaced for good.

    Args:
        library: of `LIBRARIES`.
        network: changed in place.
    """
    sparse_convolution.LIBRARY = f"{library}.pytorch"
    return sparse_convolution.by_peer(network)
