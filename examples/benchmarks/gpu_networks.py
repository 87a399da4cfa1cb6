"""Every network on the device compared with the CPU in float32: features, logits and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from gpu_ceilings import tf32
from gpu_equal import (
    GRADIENT_TOLERANCE,
    NETWORK_TOLERANCE,
    PRECISIONS,
    difference,
    judged,
    ways_of,
)
from gpu_parts import Bench
from gpu_scenes import Scene
from gpu_volumes import TINY_SPEC, parity_spec
from torch import Tensor, nn
from traced_steps import build

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

Forward = Callable[[nn.Module, torch.device], Tensor]


def networks(bench: Bench) -> None:
    """Compare all of them, each with random weights and settled norms."""
    scene = Scene(60 if bench.tiny else 3000)
    with tf32(False):
        for name in SIZES["full"]:
            bench.attempt(name, lambda name=name: _backbone(bench, name, scene))
        for stage in (1, 2):
            bench.attempt(f"DINO-Med3D, stage {stage}", lambda stage=stage: _volume(bench, stage))


def backbone(name: str, size: str) -> nn.Module:
    """A network of one of `SIZES` with random weights."""
    torch.manual_seed(0)
    return build_backbone(name, in_channels=CHANNELS.get(name, 6), **SIZES[size][name])


def _backbone(bench: Bench, name: str, scene: Scene) -> dict[str, Any]:
    cloud = scene.cloud(CHANNELS.get(name, 6))
    network = backbone(name, "tiny" if bench.tiny else "narrow")
    settle(network, cloud)

    def forward(network: nn.Module, device: torch.device) -> Tensor:
        return network(cloud.to(device)).feat  # type: ignore[no-any-return]

    return compared(network, forward, bench.device)


def _volume(bench: Bench, stage: int) -> dict[str, Any]:
    """Both stages: slices with their neighbours, and a volume."""
    spec, side = (TINY_SPEC, 16) if bench.tiny else (parity_spec(), 64)
    torch.manual_seed(0)
    network = build(spec, channels=1, classes=3, stage=stage)
    awaken(network)
    running = network.stage_one() if stage == 1 else network
    shape = (4, spec.slices, side, side) if stage == 1 else (1, 1, 8, side, side + 6)
    volume = torch.randn(shape, generator=torch.Generator().manual_seed(1))

    def forward(running: nn.Module, device: torch.device) -> Tensor:
        out = running(volume.to(device))
        return out if isinstance(out, Tensor) else out[0]

    return compared(running, forward, bench.device)


def awaken(network: nn.Module) -> None:
    """Give modules that begin at zero a value, so that what they compute shows."""
    for name, parameter in network.named_parameters():
        if not parameter.detach().any():
            std = 1.0 if name.endswith("norm.weight") else 0.05
            nn.init.normal_(parameter, std=std)


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


def compared(network: nn.Module, forward: Forward, device: torch.device) -> dict[str, Any]:
    """Differences of results and of all gradients in each precision, and whether they are accepted.

    The network is in evaluation: nothing is drawn at random.
    """
    network.eval()
    wanted = _results(network, forward, torch.device("cpu"), None)
    network.to(device)
    outputs, gradients = {}, {}
    for name, dtype in PRECISIONS.items():
        with ways_of(device):
            found = _results(network, forward, device, None if name == "float32" else dtype)
        outputs[name] = difference(found[:1], wanted[:1])
        gradients[name] = difference(found[1:], wanted[1:])
    first, second = judged(outputs, NETWORK_TOLERANCE), judged(gradients, GRADIENT_TOLERANCE)
    return {"equal": first["equal"] and second["equal"], "result": first, "gradients": second}


def _results(
    network: nn.Module, forward: Forward, device: torch.device, dtype: torch.dtype | None
) -> list[Tensor]:
    """Output, then the gradients of all parameters that have one."""
    network.zero_grad(set_to_none=True)
    scale = 2.0**16 if dtype == torch.float16 else 1.0  # as a gradient scaler begins
    with torch.autocast(device.type, dtype) if dtype else nullcontext():
        out = forward(network, device)
    weights = torch.linspace(-1, 1, out.numel()).view_as(out).to(device)
    (scale * (out.float() * weights).mean()).backward()
    found = [p.grad / scale for p in network.parameters() if p.grad is not None]
    return [out, *found]
