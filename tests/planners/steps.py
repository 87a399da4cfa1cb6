"""Steps of training as the trainer makes them, for tracing and for doing them with real tensors."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dinomed3d.networks import DinoMed3D, NetworkSpec, build_network
from dinomed3d.training.recipe import Recipe
from dinomed3d.training.stages import begin_stage, proxy_loss
from planners.trace import LiveMemory, Traced, materialise, trace_prediction, trace_step

Inputs = dict[str, tuple[tuple[int, ...], torch.dtype]]


def nnunet_loss(*, regions: bool = False, ignore_label: int | None = None) -> nn.Module:
    """The loss that nnU-Net's own trainer builds, for labels or for regions."""
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
    """A network in a stage, on whatever device is the default."""
    network = build_network(channels, classes, True, **spec.to_arch_kwargs())
    recipe = Recipe(activation_checkpointing=checkpointing)
    begin_stage(network, recipe, stage=stage, supervised=True)
    return network.train()


def step_loss(
    network: DinoMed3D, *, stage: int, loss: nn.Module
) -> Callable[..., Tensor]:  # fmt: skip
    """The loss of a step on its inputs, by the names that `step_inputs` gives them."""
    if stage == 1:
        running = network.stage_one()

        def one(image: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
            return proxy_loss(
                running, network.image(image), target, chosen, slices=network.spec.slices, loss=loss
            )  # fmt: skip

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
        network: whose heads say how many targets there are.
        patch: (D, H, W) or (H, W).
        stage: 1 or 2.
        batch: patches.
        channels: of the image.
        labels: channels of the target: 1, or one for each region.
        slices: that stage I draws.
    """
    inputs: Inputs = {"image": ((batch, channels, *patch), torch.float32)}
    if stage == 1:
        inputs["target"] = ((batch, labels, *patch), torch.int16)
        return inputs | {"chosen": ((slices,), torch.int64)}
    *depth, height, width = patch
    for head in range(len(network.decoder.seg_layers)):
        sides = (-(-height // 2**head), -(-width // 2**head))
        inputs[f"target{head}"] = ((batch, labels, *depth, *sides), torch.int16)
    return inputs


def make_inputs(inputs: Inputs, *, classes: int) -> dict[str, Tensor]:
    """Real inputs: noise, labels of all classes (or zeros and ones for regions), the first slices."""
    batch = {}
    for name, (shape, kind) in inputs.items():
        if name == "image":
            batch[name] = torch.randn(shape)
        elif name == "chosen":
            batch[name] = torch.arange(shape[0])
        else:
            labels = classes if shape[1] == 1 else 2
            batch[name] = torch.randint(0, labels, shape).to(kind)
    return batch


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
    """Trace a step of either stage, on `batch` patches of which stage I draws so many slices."""
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
    return trace_step(network, inputs, step_loss(network, stage=stage, loss=loss))


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
    """Bytes at the fullest moment of each stage's first step, and of a prediction after them.

    The optimizer has no moments yet in them. A third of the time of `trace_training` and
    `trace_predicting`, which build anew, take a second step and count operations.
    """
    with torch.device("meta"):
        network = build(
            spec, channels=channels, classes=classes, stage=1, checkpointing=checkpointing
        )
    recipe = Recipe(activation_checkpointing=checkpointing)
    peaks = []
    with FakeTensorMode(allow_non_fake_inputs=True), LiveMemory() as live:
        materialise(network)
        for stage in (1, 2):
            begin_stage(network, recipe, stage=stage, supervised=True)
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


def trace_predicting(
    spec: NetworkSpec, patch: Sequence[int], *, channels: int, classes: int
) -> int:  # fmt: skip
    """Bytes at the fullest moment while one patch is predicted."""
    with torch.device("meta"):
        network = build_network(channels, classes, False, **spec.to_arch_kwargs())
    return trace_prediction(network, (1, channels, *patch))
