"""Peak memory and arithmetic of training steps, traced on fake tensors.

The network's own code runs on tensors without values: every allocation is counted, none is made. The
benchmarks and the tests of the planners compare the formulas of `planners.cost` with these steps.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from dinomed3d.networks import DinoMed3D, NetworkSpec, build_network


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Fused attention on CPUs, which PyTorch's counter does not know."""


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of all storages that are alive inside its context."""

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
    """Memory and arithmetic of a traced step."""

    peak: int
    """Peak memory of a step that is not the first, bytes."""
    saved: int
    """Bytes alive between forward and backward pass, without weights, optimizer and inputs."""
    flops: int
    """Operations of forward and backward pass by PyTorch's counter."""


def fused_adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of our trainer."""
    return torch.optim.AdamW(parameters, fused=True)


def trace_step(
    network: nn.Module,
    inputs: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
    loss: Callable[..., Tensor],
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = fused_adamw,
    *,
    recomputing: bool = False,
) -> Traced:
    """Trace one training step in mixed precision on a CPU's operators.

    Args:
        network: on the meta device; parameters that require gradients learn.
        inputs: shapes and types of the arguments of `loss`.
        loss: runs the network on the inputs, given by name.
        optimizer: builds one for the parameters that learn.
        recomputing: parts of the network are computed again in the backward pass.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), LiveMemory() as live:
        materialise(network)
        learning = [p for p in network.parameters() if p.requires_grad]
        updates = optimizer(learning)
        batch = {name: torch.empty(shape, dtype=kind) for name, (shape, kind) in inputs.items()}
        flops = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
        for parameter in learning:
            parameter.grad = torch.empty_like(parameter)
        updates.step()  # makes the optimizer's moments
        saved = 0
        # The counter of operations keeps recomputed activations alive and would falsify the memory: where there
        # are some, memory is that of a second step without it.
        for counter in (flops, nullcontext()) if recomputing else (flops,):
            updates.zero_grad(set_to_none=True)
            gc.collect()
            before = live.now
            live.peak = live.now
            with counter:
                with torch.autocast("cpu", torch.bfloat16):
                    value = loss(**batch)
                saved = live.now - before
                value.backward()
            del value
            updates.step()
        return Traced(peak=live.peak, saved=saved, flops=flops.get_total_flops())


def trace_prediction(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Peak memory of a prediction in bytes, weights included.

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


Inputs = dict[str, tuple[tuple[int, ...], torch.dtype]]


def nnunet_loss(*, regions: bool = False, ignore_label: int | None = None) -> nn.Module:
    """The loss that nnU-Net's trainer builds, for labels or for regions."""
    dice = {"batch_dice": False, "smooth": 1e-5, "ddp": False}
    if regions:
        return DC_and_BCE_loss(
            {}, dice | {"do_bg": True}, dice_class=MemoryEfficientSoftDiceLoss
        )  # fmt: skip
    return DC_and_CE_loss(
        dice | {"do_bg": False},
        {},
        ignore_label=ignore_label,
        dice_class=MemoryEfficientSoftDiceLoss,
    )


def build(
    spec: NetworkSpec, *, channels: int, classes: int, stage: int, checkpointing: bool = False
) -> DinoMed3D:
    """A network in a stage, on the default device."""
    network = build_network(channels, classes, True, **spec.to_arch_kwargs())
    network.begin_stage(stage)
    if network.encoder is not None:
        network.encoder.encoder.checkpointing = checkpointing
    return network.train()


def step_loss(
    network: DinoMed3D, *, stage: int, loss: nn.Module
) -> Callable[..., Tensor]:  # fmt: skip
    """A function that computes the loss of a step from its inputs, named as by `step_inputs`."""
    if stage == 1:
        running = network.stage_one()

        def one(image: Tensor, target: Tensor) -> Tensor:
            return loss(running(image).float(), target)  # type: ignore[no-any-return]

        return one

    heads = len(network.decoder.seg_layers)
    deep = DeepSupervisionWrapper(loss, [1 / heads] * heads)

    def two(image: Tensor, **targets: Tensor) -> Tensor:
        outputs = [logits.float() for logits in network(image)]
        return deep(outputs, [targets[f"target{head}"] for head in range(heads)])

    return two


def step_inputs(
    network: DinoMed3D,
    patch: Sequence[int],
    *,
    stage: int,
    batch: int,
    channels: int,
    labels: int = 1,
    slices: int = 0,
) -> Inputs:
    """Shapes and types of a step's inputs.

    Args:
        network: its heads determine the number of targets.
        patch: (D, H, W) or (H, W).
        stage: 1 or 2.
        batch: patches.
        channels: of the input.
        labels: channels of the target: 1, or one for each region.
        slices: in a step of stage I.
    """
    if stage == 1:
        modalities = channels - network.spec.cascade_channels
        stacks = (slices, network.spec.slices * modalities, *patch[-2:])
        target = (slices, labels, *patch[-2:])
        return {"image": (stacks, torch.float32), "target": (target, torch.int16)}
    inputs: Inputs = {"image": ((batch, channels, *patch), torch.float32)}
    for head, cell in enumerate(network.spec.cnn.cells[: len(network.decoder.seg_layers)]):
        sides = [-(-side // step) for side, step in zip(patch, cell[-len(patch) :], strict=True)]
        inputs[f"target{head}"] = ((batch, labels, *sides), torch.int16)
    return inputs


def trace_training(
    spec: NetworkSpec,
    patch: Sequence[int],
    *,
    stage: int,
    batch: int,
    channels: int,
    classes: int,
    slices: int = 0,
    checkpointing: bool = False,
    regions: bool = False,
    ignore_label: int | None = None,
) -> Traced:
    """Trace a step of stage II on `batch` patches, or of stage I on `slices` slices."""
    with torch.device("meta"):
        network = build(
            spec, channels=channels, classes=classes, stage=stage, checkpointing=checkpointing
        )
    more: dict[str, Any] = dict(
        stage=stage,
        batch=batch,
        channels=channels,
        labels=classes if regions else 1,
        slices=slices,
    )
    inputs = step_inputs(network, patch, **more)
    loss = nnunet_loss(regions=regions, ignore_label=ignore_label)
    compute = step_loss(network, stage=stage, loss=loss)
    return trace_step(network, inputs, compute, recomputing=checkpointing)


def trace_predicting(
    spec: NetworkSpec, patch: Sequence[int], *, channels: int, classes: int
) -> int:  # fmt: skip
    """Peak memory of predicting one patch, bytes."""
    with torch.device("meta"):
        network = build_network(channels, classes, False, **spec.to_arch_kwargs())
    return trace_prediction(network, (1, channels, *patch))
