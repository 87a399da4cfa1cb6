"""Every network of point clouds on the device compared with the CPU in float32: features and gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from gpu_backbones import CHANNELS, SIZES, backbone, settle
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
from torch import Tensor, nn

Forward = Callable[[nn.Module, torch.device], Tensor]


def networks(bench: Bench) -> None:
    """Compare all of them, each with random weights and settled norms."""
    scene = Scene(60 if bench.tiny else 3000)
    with tf32(False):
        for name in SIZES["full"]:
            bench.attempt(name, lambda name=name: _backbone(bench, name, scene))


def _backbone(bench: Bench, name: str, scene: Scene) -> dict[str, Any]:
    cloud = scene.cloud(CHANNELS.get(name, 6))
    network = backbone(name, "tiny" if bench.tiny else "narrow")
    settle(network, cloud)

    def forward(network: nn.Module, device: torch.device) -> Tensor:
        return network(cloud.to(device)).feat  # type: ignore[no-any-return]

    return compared(network, forward, bench.device)


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
