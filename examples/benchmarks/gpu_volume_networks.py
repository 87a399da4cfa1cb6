"""Both stages of DINO-Med3D on the device compared with the CPU in float32: logits and gradients."""

from __future__ import annotations

from typing import Any

import torch
from gpu_ceilings import tf32
from gpu_networks import compared
from gpu_parts import Bench
from gpu_volumes import TINY_SPEC, parity_spec
from torch import Tensor, nn
from traced_steps import build


def volume_networks(bench: Bench) -> None:
    """Compare both stages, with random weights."""
    with tf32(False):
        for stage in (1, 2):
            bench.attempt(f"DINO-Med3D, stage {stage}", lambda stage=stage: _volume(bench, stage))


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
