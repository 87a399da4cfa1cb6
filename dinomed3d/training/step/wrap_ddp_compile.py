"""Wrappers around the current stage's network: DistributedDataParallel and torch.compile.

The trainer keeps the plain network for checkpoints, validation and prediction. The wrapped one shares
its parameters and lives for one stage.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dinomed3d.networks import DinoMed3D
from dinomed3d.training.step.distributed import is_parallel


def running_network(
    network: DinoMed3D, *, stage: int, device: torch.device, backend: str | None
) -> nn.Module:
    """The network that a training step calls.

    Args:
        network: after `begin_stage`.
        stage: 1 for slices with neighbours (`stage_one`), 2 for volumes.
        device: of the network.
        backend: of torch.compile, or None.

    Returns:
        With several processes a wrapper that starts with the first process's parameters in all of them
        and averages gradients in every backward pass.
    """
    running: Any = network if stage == 2 else network.stage_one()
    encoder = None if network.encoder is None else network.encoder.encoder
    if is_parallel():
        # PyTorch advises to compile the wrapper, so that communication overlaps with the backward
        # pass; but it cannot split a graph that holds checkpointed blocks.
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
