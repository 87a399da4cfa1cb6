"""The networks of point clouds that `gpu.py` measures, in three sizes, with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pointseg.backbones.build import build_backbone
from pointseg.cloud import Cloud


def curves(
    widths: tuple[int, int, int], heads: tuple[int, int, int], window: int
) -> dict[str, Any]:
    """Arguments of a network of three stages that follows curves, its decoder as wide as its encoder."""
    return {
        "stride": (2, 2),
        "enc_depths": (1, 1, 1),
        "enc_channels": widths,
        "enc_num_head": heads,
        "enc_patch_size": (window,) * 3,
        "dec_depths": (1, 1),
        "dec_channels": widths[:2],
        "dec_num_head": heads[:2],
        "dec_patch_size": (window,) * 2,
    }


CONVOLVES: Mapping[str, Any] = {
    "enc_conv": (True, True, False),
    "enc_attn": (False, False, True),
    "enc_rope_freq": (100.0,) * 3,
    "dec_conv": (False, False),
    "dec_attn": (False, False),
    "dec_rope_freq": (100.0,) * 2,
}
"""Which stages of LitePT convolve, and which attend."""


def encoder_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a network without a decoder."""
    return {k: v for k, v in arguments.items() if k.startswith(("enc", "stride"))}


TINY_CURVES, CURVES = curves((12, 12, 24), (2, 2, 4), 16), curves((48, 96, 96), (2, 4, 4), 256)
SIZES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "tiny": {
        "ptv3": TINY_CURVES,
        "minkunet": {"base_channels": 8, "channels": (8,) * 4, "layers": (1,) * 4},
        "pointnext": {"width": 8, "blocks": (1, 1), "strides": (4, 4), "neighbours": 8},
        "litept": TINY_CURVES | CONVOLVES,
        "sonata": encoder_of(TINY_CURVES),
        "utonia": encoder_of(TINY_CURVES),
    },
    "narrow": {
        "ptv3": CURVES,
        "minkunet": {"base_channels": 32, "channels": (32, 64, 64, 32), "layers": (2,) * 4},
        "pointnext": {"width": 32, "blocks": (1, 2, 1, 1)},
        "litept": CURVES | CONVOLVES,
        "sonata": encoder_of(CURVES),
        "utonia": encoder_of(CURVES),
    },
    "full": {name: {} for name in ("ptv3", "minkunet", "pointnext", "litept", "sonata", "utonia")},
}
"""Arguments of the networks: for trials, for comparisons with the CPU (few channels, since kernels are compiled for
each number of them, in each precision), and as published."""
CHANNELS = {"sonata": 9, "utonia": 9}
"""Input channels, where they are not six."""


def backbone(name: str, size: str) -> nn.Module:
    """A network of one of `SIZES` with random weights."""
    torch.manual_seed(0)
    return build_backbone(name, in_channels=CHANNELS.get(name, 6), **SIZES[size][name])


def settle(network: nn.Module, cloud: Cloud) -> None:
    """Move batch norms half way to the statistics of the cloud, so that values stay in range at every depth.

    Not all the way: at the coarsest levels of a small cloud, statistics of a few points are near zero.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 0.5
    network.train()
    with torch.no_grad():
        network(cloud)
    network.eval()
