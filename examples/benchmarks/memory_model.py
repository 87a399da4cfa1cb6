"""The planner's counted memory and arithmetic against a tracer's, for plans of twelve kinds of data.

The tracer runs the network's and nnU-Net's own code on fake tensors and sees every allocation; on CUDA
(`--device cuda`) the peak of real steps is measured as well. Plans that need more memory than there is
are left out there.

    python examples/benchmarks/memory_model.py
"""

from __future__ import annotations

import argparse
import math

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn

from dinomed3d.networks import DinoMed3D, build_network
from dinomed3d.training.precision import autocast
from planners.dataset_stats import Images
from planners.sizing import Sizing, size_configuration
from planners.trace import trace_prediction, trace_step

# spacing mm, median shape, cases, channels, outputs
DATA: dict[str, tuple[tuple[float, ...], tuple[int, ...], int, int, int]] = {
    "hippocampus": ((1, 1, 1), (36, 50, 35), 260, 1, 3),
    "prostate": ((3.6, 0.62, 0.62), (20, 320, 319), 32, 2, 3),
    "brain tumour": ((1, 1, 1), (140, 170, 138), 484, 4, 3),
    "cine heart": ((10, 1.56, 1.56), (9, 237, 208), 200, 1, 4),
    "liver CT": ((1, 0.77, 0.77), (500, 512, 512), 131, 1, 3),
    "whole body": ((2, 2, 2), (900, 400, 400), 500, 1, 25),
    "micro-CT": ((0.05, 0.05, 0.05), (700, 700, 700), 40, 1, 5),
    "retina OCT": ((0.12, 0.0039, 0.0117), (49, 496, 512), 110, 1, 8),
    "ultrasound": ((0.5, 0.5), (400, 550), 1000, 1, 2),
    "X-ray": ((0.15, 0.15), (2000, 2000), 1200, 1, 4),
    "one slice": ((1, 1), (256, 256), 300, 1, 3),
    "117 labels": ((1.5, 1.5, 1.5), (264, 243, 243), 1200, 1, 118),
}


def network_of(sizing: Sizing, images: Images, device: str) -> DinoMed3D:
    with torch.device(device):
        network = build_network(
            images.channels, images.classes, True, **sizing.spec.to_arch_kwargs()
        )
    assert network.encoder is not None
    network.encoder.encoder.checkpointing = sizing.recipe["activation_checkpointing"]
    return network.train()


def loss_over(heads: int) -> nn.Module:
    loss: nn.Module = DC_and_CE_loss(
        {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False},
        {},
        dice_class=MemoryEfficientSoftDiceLoss,
    )
    return DeepSupervisionWrapper(loss, [1 / 2**i for i in range(heads)]) if heads else loss


Shapes = dict[str, tuple[tuple[int, ...], torch.dtype]]


def shapes_of(sizing: Sizing, images: Images, network: DinoMed3D, stage: int) -> Shapes:
    """What a step of a stage gets."""
    *depth, height, width = sizing.patch
    if stage == 1:
        slices, stack = sizing.recipe["stage1_slices"], sizing.spec.slices * images.channels
        return {
            "volume": ((slices, stack, height, width), torch.float32),
            "target0": ((slices, 1, height, width), torch.int16),
        }
    shapes: Shapes = {"volume": ((sizing.batch, images.channels, *sizing.patch), torch.float32)}
    for head in range(len(network.decoder.seg_layers)):
        plane = (-(-height // 2**head), -(-width // 2**head))
        shapes[f"target{head}"] = ((sizing.batch, 1, *depth, *plane), torch.int16)
    return shapes


def run_step(
    network: DinoMed3D, loss: nn.Module, stage: int, volume: Tensor, **targets: Tensor
) -> Tensor:
    """The loss of a batch, as the trainer computes it."""
    if stage == 1:
        value: Tensor = loss(network.stage_one()(volume).float(), targets["target0"])
        return value
    value = loss([x.float() for x in network(volume)], list(targets.values()))
    return value


def cuda_peak(sizing: Sizing, images: Images, stage: int) -> float:
    """Bytes of real steps on the GPU; nan where they do not fit."""
    network = network_of(sizing, images, "cuda")
    network.begin_stage(stage)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], fused=True)
    shapes = shapes_of(sizing, images, network, stage)
    loss = loss_over(len(shapes) - 1 if stage == 2 else 0)
    batch = {name: torch.zeros(s, dtype=kind, device="cuda") for name, (s, kind) in shapes.items()}
    try:
        for _ in range(2):
            torch.cuda.reset_peak_memory_stats()
            optimizer.zero_grad(set_to_none=True)
            with autocast(torch.device("cuda")):
                value = run_step(network, loss, stage, **batch)
            value.backward()
            optimizer.step()
        return float(torch.cuda.max_memory_allocated())
    except torch.cuda.OutOfMemoryError:
        return math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", type=float, nargs="+", default=[6, 12, 24, 80], help="GiB")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="one kind of data, one target")
    args = parser.parse_args()
    print("| data | GiB | encoder | patch | step | GiB counted / traced | TFLOP counted / traced |"
          + (" GiB counted / CUDA |" if args.device == "cuda" else ""))  # fmt: skip
    print("|---|---|---|---|---|---|---|" + ("---|" if args.device == "cuda" else ""))
    ratios = []
    for name, (spacing, shape, cases, channels, classes) in list(DATA.items())[
        : 1 if args.quick else None
    ]:
        images = Images(
            spacing=spacing,
            shape=shape,
            voxels=math.prod(shape) * cases,
            channels=channels,
            classes=classes,
        )
        for memory in args.memory[: 1 if args.quick else None]:
            sizing = size_configuration(images, memory)
            assert sizing.stage_one is not None
            patch = " x ".join(map(str, sizing.patch))
            told = (
                f"| {name} | {memory:g} | {sizing.spec.encoder[4:].split('_patch')[0]} | {patch} "
            )
            for stage, cost in ((1, sizing.stage_one), (2, sizing.stage_two)):
                network = network_of(sizing, images, "meta")
                network.begin_stage(stage)
                shapes = shapes_of(sizing, images, network, stage)
                loss = loss_over(len(shapes) - 1 if stage == 2 else 0)

                def step(**batch: Tensor) -> Tensor:
                    return run_step(network, loss, stage, **batch)  # noqa: B023  used at once

                traced = trace_step(network, shapes, step)
                ratio = cost.peak / traced.peak
                ratios.append(ratio)
                count = sizing.batch if stage == 2 else sizing.recipe["stage1_slices"]
                row = f"{told}| {'I' if stage == 1 else 'II'}, {count} "
                row += f"| {cost.peak / 2**30:.2f} / {traced.peak / 2**30:.2f} = {ratio:.3f} "
                row += f"| {cost.flops / 1e12:.2f} / {traced.flops / 1e12:.2f} = {cost.flops / traced.flops:.3f} |"
                if args.device == "cuda":
                    real = cuda_peak(sizing, images, stage)
                    row += (
                        f" {cost.peak / 2**30:.2f} / {real / 2**30:.2f} = {cost.peak / real:.3f} |"
                    )
                print(row, flush=True)
            traced_peak = trace_prediction(
                network_of(sizing, images, "meta").requires_grad_(False),
                (1, channels, *sizing.patch),
            )
            ratio = sizing.prediction / traced_peak
            print(
                f"{told}| predicting | {sizing.prediction / 2**30:.2f} / {traced_peak / 2**30:.2f} = {ratio:.3f} | |"
            )
    print(
        f"\ncounted / traced peak of training: {min(ratios):.3f} to {max(ratios):.3f} over {len(ratios)} steps"
    )


if __name__ == "__main__":
    main()
