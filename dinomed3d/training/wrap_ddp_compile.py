"""The running stage's network as training steps call it: over several GPUs, compiled, or as it is.

The trainer keeps the plain network: checkpoints, validation and prediction know nothing of this. What
is made here shares its parameters, holds for one stage, and is made anew for the next.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dinomed3d.networks import DinoMed3D
from dinomed3d.training.distributed import is_parallel


def compiler(device: torch.device) -> str | None:
    """The backend that torch.compile is to use, or None to leave it: nnU-Net's switch, off by default.

    Args:
        device: compiled networks are for CUDA alone, as in nnU-Net.
    """
    asked = os.environ.get("nnUNet_compile", "").lower() in ("true", "1", "t")
    return "inductor" if asked and device.type == "cuda" and os.name != "nt" else None


def running_network(
    network: DinoMed3D, *, stage: int, device: torch.device, backend: str | None
) -> nn.Module:
    """What a training step runs.

    Args:
        network: its parameters learn as `begin_stage` has said.
        stage: 1 for slices with neighbours (`stage_one`), 2 for volumes.
        device: of the network.
        backend: of torch.compile, or None.

    Returns:
        With several processes a wrapper that begins with the first one's parameters in all of them
        and averages gradients in every backward pass.
    """
    running: Any = network if stage == 2 else network.stage_one()
    encoder = None if network.encoder is None else network.encoder.encoder
    if is_parallel():
        # torch advises to compile what is wrapped, so that gradients travel while others are computed.
        # But it cannot split a graph that holds recomputed blocks
        if backend is not None and encoder is not None and encoder.checkpointing:
            running, backend = torch.compile(running, backend=backend), None
        running = DistributedDataParallel(
            running,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,  # constants, all of them
            gradient_as_bucket_view=True,  # one copy of the gradients, not two
        )
    if backend is not None:
        running = torch.compile(running, backend=backend)
    assert isinstance(running, nn.Module)
    return running
