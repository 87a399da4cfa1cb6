"""Memory and arithmetic of a step as PyTorch would do it, without doing it.

The network's own code runs on fake tensors, which have sizes and no values: every allocation is seen,
none is made. This is what the counted model (`planners.cost`) is held against.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of all storages that are alive while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}

    def watch(self, tensor: Tensor) -> None:
        """Count a tensor's storage, once, until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._sizes:
            return
        self._sizes[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.now -= self._sizes.pop(key)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_iter(out):
            if isinstance(leaf, Tensor):
                self.watch(leaf)
        return out


@dataclass(frozen=True, kw_only=True)
class Traced:
    """What a step took, bytes and operations."""

    peak: int
    """Bytes at the fullest moment of a step that is not the first."""
    saved: int
    """Bytes alive between forward and backward pass, beside weights, optimizer and inputs."""
    flops: int
    """Forward and backward, as PyTorch's counter sees them."""


def fused_adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The trainer's."""
    return torch.optim.AdamW(parameters, fused=True)


def trace_step(
    network: nn.Module,
    inputs: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
    loss: Callable[..., Tensor],
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = fused_adamw,
) -> Traced:
    """Trace one training step in mixed precision on a CPU's operators.

    Args:
        network: on the meta device; what requires a gradient learns.
        inputs: shapes and types of what `loss` gets.
        loss: of the inputs, by name; runs the network.
        optimizer: made for what learns.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), LiveMemory() as live:
        materialise(network)
        learning = [p for p in network.parameters() if p.requires_grad]
        updates = optimizer(learning)
        batch = {name: torch.empty(shape, dtype=kind) for name, (shape, kind) in inputs.items()}
        flops = FlopCounterMode(display=False)
        saved = 0
        # The first step makes the optimizer's moments. Operations are counted in it alone: the counter
        # holds on to what checkpointed blocks compute again, so nothing is measured beside it.
        for first in (True, False):
            updates.zero_grad(set_to_none=True)
            gc.collect()
            before = live.now
            live.peak = live.now
            with flops if first else nullcontext():
                with torch.autocast("cpu", torch.bfloat16):
                    value = loss(**batch)
                saved = live.now - before
                value.backward()
            del value
            updates.step()
        return Traced(peak=live.peak, saved=saved, flops=flops.get_total_flops())


def trace_prediction(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Bytes at the fullest moment of a prediction, weights included.

    Args:
        network: on the meta device.
        shape: of its input.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), LiveMemory() as live:
        materialise(network)
        network.eval()
        volume = torch.empty(shape)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            network(volume)
        return live.peak


def materialise(network: nn.Module) -> None:
    """Move a network from the meta device to fake CPU tensors, in place.

    `nn.Module.to_empty` would swap them twice where two modules share a third, as nnU-Net's U-Nets do.
    """
    moved: dict[Tensor, Tensor] = {}
    for module in network.modules():
        for own in (module._parameters, module._buffers):
            for name, old in own.items():
                if old is None:
                    continue
                if old not in moved:
                    new = torch.empty_like(old, device="cpu")
                    trained = isinstance(old, nn.Parameter)
                    moved[old] = nn.Parameter(new, old.requires_grad) if trained else new
                own[name] = moved[old]  # type: ignore[assignment]
