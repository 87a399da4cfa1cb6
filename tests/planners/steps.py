"""Inputs for steps with real tensors, and the peaks of first steps alone."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from dinomed3d.networks import NetworkSpec
from examples.benchmarks.traced_steps import (
    Inputs,
    LiveMemory,
    build,
    materialise,
    nnunet_loss,
    step_inputs,
    step_loss,
)


def make_inputs(inputs: Inputs, *, classes: int) -> dict[str, Tensor]:
    """Real inputs: noise, and labels of all classes (or zeros and ones for regions)."""
    batch = {}
    for name, (shape, kind) in inputs.items():
        if name == "image":
            batch[name] = torch.randn(shape)
        else:
            labels = classes if shape[1] == 1 else 2
            batch[name] = torch.randint(0, labels, shape).to(kind)
    return batch


def first_peaks(
    spec: NetworkSpec,
    patch: Sequence[int],
    *,
    batch: int,
    channels: int,
    classes: int,
    slices: int,
    checkpointing: bool,
) -> tuple[int, int, int]:
    """Peak memory of each stage's first step and of a prediction after them, bytes.

    The optimizer has no moments yet in them. A third of the time of `trace_training` and
    `trace_predicting`, which build anew, take a second step and count operations.
    """
    with torch.device("meta"):
        network = build(
            spec, channels=channels, classes=classes, stage=1, checkpointing=checkpointing
        )
    peaks = []
    with FakeTensorMode(allow_non_fake_inputs=True), LiveMemory() as live:
        materialise(network)
        for stage in (1, 2):
            network.begin_stage(stage)
            network.train()
            learning = [p for p in network.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(learning, fused=True)
            live.peak = live.now
            inputs = step_inputs(
                network, patch, stage=stage, batch=batch, channels=channels, slices=slices
            )
            given = {name: torch.empty(shape, dtype=kind) for name, (shape, kind) in inputs.items()}
            with torch.autocast("cpu", torch.bfloat16):
                value = step_loss(network, stage=stage, loss=nnunet_loss())(**given)
            value.backward()
            peaks.append(live.peak)
            assert all(parameter.grad is not None for parameter in learning)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            del value, given, optimizer, learning
        network.eval().decoder.deep_supervision = False
        gc.collect()
        live.peak = live.now
        volume = torch.empty(1, channels, *patch)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            network(volume)
        peaks.append(live.peak)
    return peaks[0], peaks[1], peaks[2]
