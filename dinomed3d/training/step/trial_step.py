"""One full-size step of stage II before training begins: stage I takes hours and less memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dinomed3d.networks import DinoMed3D
from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory
from dinomed3d.training.checkpoints.random_state import random_state, set_random_state
from dinomed3d.training.step.distributed import gathered
from dinomed3d.training.step.precision import autocast


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How a step fits into memory."""

    checkpointing: bool
    """Whether activations are recomputed in it."""
    peak: int
    """Largest memory that it took in a process, bytes; 0 where it is not measured."""


def try_step(
    step: Callable[[bool], int], *, checkpointing: bool, can_recompute: bool = True
) -> Fitting | None:
    """Try a step, and if it does not fit, with activation checkpointing; every process must call this.

    Args:
        step: makes it, with activation checkpointing if True, and returns its peak in bytes.
        checkpointing: whether to begin with it.
        can_recompute: whether activation checkpointing changes anything.

    Returns:
        What fits in every process; None if nothing does.
    """
    choices = (False, True) if can_recompute and not checkpointing else (checkpointing,)
    for choice in choices:
        peaks = gathered(_peak(step, choice))
        fitting = [peak for peak in peaks if peak is not None]
        if len(fitting) == len(peaks):
            return Fitting(checkpointing=choice, peak=max(fitting))
    return None


def _peak(step: Callable[[bool], int], checkpointing: bool) -> int | None:
    try:
        return step(checkpointing)
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
    return None  # here the error's frames are gone, and with them the tensors that they held


@contextmanager
def undone(network: DinoMed3D, *, stage: int, deep_supervision: bool) -> Iterator[None]:
    """Restore what a trial changes: the running stage, gradients and random generators.

    Args:
        network: between steps, when it has no gradients.
        stage: that it is in.
        deep_supervision: as given to `begin_stage`.
    """
    states = random_state()
    encoder = None if network.encoder is None else network.encoder.encoder
    checkpointing = encoder is not None and encoder.checkpointing
    try:
        yield
    finally:
        network.zero_grad(set_to_none=True)
        network.begin_stage(stage, deep_supervision=deep_supervision)
        network.train()
        if encoder is not None:
            encoder.checkpointing = checkpointing
        set_random_state(states)


def full_size_step(
    network: DinoMed3D,
    batch: Mapping[str, Any],
    loss: Callable[..., Tensor],
    *,
    device: torch.device,
    deep_supervision: bool,
    checkpointing: bool,
    halo: int = 0,
) -> int:
    """Forward and backward pass of stage II while memory holds AdamW's moments; parameters stay.

    Args:
        network: after it, `undone` restores its stage and gradients.
        batch: {"data", "target"} of nnU-Net's loader.
        loss: nnU-Net's, of logits and targets.
        device: of the network.
        deep_supervision: whether the network returns several levels.
        checkpointing: whether activations are recomputed.
        halo: slices at both ends of the data that are read as neighbours alone.

    Returns:
        Peak memory on CUDA in bytes, 0 elsewhere.
    """
    network.begin_stage(2, deep_supervision=deep_supervision)
    network.train()
    if network.encoder is not None:
        network.encoder.encoder.checkpointing = checkpointing
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    learning = [p for p in network.parameters() if p.requires_grad]
    moments = [torch.zeros_like(p) for p in learning for _ in range(2)]
    data, target = batch["data"].to(device), batch["target"]
    with autocast(device):
        logits = network(data, halo=(halo, halo))
        if deep_supervision:
            value = loss([x.float() for x in logits], [t.to(device) for t in target])
        else:
            value = loss(logits.float(), target.to(device))
    value.backward()
    nn.utils.clip_grad_norm_(learning, 1.0)
    del moments
    return torch.cuda.max_memory_allocated(device) if on_cuda else 0


def without_exchange(loss: nn.Module) -> nn.Module:
    """A copy of nnU-Net's loss that asks no other process: one may have run out of memory before."""
    alone = deepcopy(loss)
    for module in alone.modules():
        if getattr(module, "ddp", False):
            module.ddp = False  # type: ignore[assignment]
    return alone
