"""Our planner compared with nnU-Net's own planners, for one dataset and one memory target.

For each plan: patch, batch, parameters, arithmetic and peak memory of a training step (ours: stage II; all traced
on fake tensors, in mixed precision, with the trainer's optimizer), and the seconds of real steps on this machine, in
the precision of the plan's trainer (nnU-Net's computes in float32 on a CPU) and in mixed precision. The dataset must
have its fingerprint (`nnUNetv2_extract_fingerprint -d ID`), and nnU-Net's folders must be set. Plans are written as
Benchmark....json and removed, unless `--keep` is given.

    python examples/benchmarks/stock_plans.py 137 --configuration 3d_fullres --memory 8
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from markdown import row, table
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncM,
)
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from traced_steps import fused_adamw, materialise, nnunet_loss, trace_step

from dinomed3d.networks import DinoMed3D
from dinomed3d.training.step.precision import autocast
from planners.nnunet import DinoMed3DPlanner

PLANNERS = {
    "nnUNetPlans": ExperimentPlanner,
    "nnUNetResEncUNetMPlans": nnUNetPlannerResEncM,
    "DinoMed3DPlans": DinoMed3DPlanner,
}


def build(plans: dict[str, Any], configuration: str, channels: int, classes: int) -> nn.Module:
    """The plan's network on the meta device, ready to train (ours in stage II)."""
    planned = PlansManager(plans).get_configuration(configuration)
    with torch.device("meta"):
        network: nn.Module = get_network_from_plans(
            planned.network_arch_class_name,
            planned.network_arch_init_kwargs,
            planned.network_arch_init_kwargs_req_import,
            channels,
            classes,
            allow_init=False,
            deep_supervision=True,
        )
    if isinstance(network, DinoMed3D):
        network.begin_stage(2)
        if network.encoder is not None:
            recipe = planned.configuration["dinomed3d_recipe"]
            network.encoder.encoder.checkpointing = recipe["activation_checkpointing"]
    return network.train()


def loss_for(shapes: list[tuple[int, ...]], regions: bool) -> nn.Module:
    """nnU-Net's loss with deep supervision over all outputs."""
    return DeepSupervisionWrapper(
        nnunet_loss(regions=regions), [1 / 2**i for i in range(len(shapes))]
    )


def output_shapes(network: nn.Module, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        materialise(network)
        return [tuple(x.shape) for x in network(torch.empty(shape))]


def stock_sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """nnU-Net's optimizer."""
    return torch.optim.SGD(parameters, 1e-3, momentum=0.99, nesterov=True)


def seconds_per_step(
    network: nn.Module,
    shape: tuple[int, ...],
    shapes: list[tuple[int, ...]],
    regions: bool,
    device: torch.device,
    steps: int,
) -> tuple[float, float]:
    """Median times of real steps with random weights and images, as trained and in mixed precision."""
    network.to_empty(device=device)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    with torch.no_grad():  # single tokens and gains have no such method
        for parameter in network.parameters():
            if not torch.isfinite(parameter).all() or parameter.abs().max() > 1e3:
                parameter.normal_(std=0.02)
    ours = isinstance(network, DinoMed3D)
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = (fused_adamw if ours else stock_sgd)(learning)
    volume = torch.randn(shape, device=device)
    targets = [_target(s, regions).to(device) for s in shapes]
    loss = loss_for(shapes, regions)

    def median(mixed: bool) -> float:
        times = []
        for _ in range(steps + 1):  # the first warms up
            start = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            with autocast(device) if mixed else contextlib.nullcontext():
                value = loss([x.float() for x in network(volume)], targets)
            value.backward()
            optimizer.step()
            float(value)  # wait for the device
            times.append(time.perf_counter() - start)
        return sorted(times[1:])[steps // 2]

    mixed = median(True)
    float32_on_cpu = not ours and device.type == "cpu"  # nnU-Net's own trainer
    return (median(False) if float32_on_cpu else mixed), mixed


def _target(shape: tuple[int, ...], regions: bool) -> Tensor:
    one = shape if regions else (shape[0], 1, *shape[2:])
    return torch.randint(0, 2, one).to(torch.float32 if regions else torch.int16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--memory", type=float, default=8.0, help="GiB, for all planners")
    parser.add_argument("--steps", type=int, default=2, help="timed steps; 0 for none")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--plans", nargs="+", choices=PLANNERS, default=tuple(PLANNERS))
    parser.add_argument(
        "--keep", action="store_true", help="leave the plans in nnUNet_preprocessed"
    )
    args = parser.parse_args()
    device = torch.device(args.device)
    print(
        f"dataset {args.dataset}, {args.configuration}, {args.memory:g} GiB; "
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"device {device}, torch {torch.__version__}"
    )
    header = "plan|patch|batch|parameters M|TFLOP a step|peak GiB|s a step|s a Mvoxel|s a step, mixed precision"
    print(table(header, []))
    for name in args.plans:
        planner_class = PLANNERS[name]
        with contextlib.redirect_stdout(io.StringIO()):
            planner = planner_class(args.dataset, args.memory, plans_name=f"Benchmark{name}")
            plans = planner.plan_experiment()
        if not args.keep:
            written = Path(nnUNet_preprocessed) / planner.dataset_name / f"Benchmark{name}.json"
            written.unlink()
        labels = PlansManager(plans).get_label_manager(planner.dataset_json)
        planned = PlansManager(plans).get_configuration(args.configuration)
        channels = len(planner.dataset_json["channel_names"])
        planned_network = (plans, args.configuration, channels, labels.num_segmentation_heads)
        shape = (planned.batch_size, channels, *planned.patch_size)
        shapes = output_shapes(build(*planned_network), shape)
        network = build(*planned_network)
        parameters = sum(p.numel() for p in network.parameters())
        loss = loss_for(shapes, labels.has_regions)
        inputs = {"volume": (shape, torch.float32)} | {
            f"target{i}": (
                (s if labels.has_regions else (s[0], 1, *s[2:])),
                torch.float32 if labels.has_regions else torch.int16,
            )
            for i, s in enumerate(shapes)
        }

        def step(volume: Tensor, **targets: Tensor) -> Tensor:
            outputs = [x.float() for x in network(volume)]  # noqa: B023  used at once
            return loss(outputs, list(targets.values()))  # noqa: B023

        ours = isinstance(network, DinoMed3D)
        traced = trace_step(network, inputs, step, fused_adamw if ours else stock_sgd)
        network = build(*planned_network)
        cells = [
            name,
            " x ".join(str(s) for s in planned.patch_size),
            str(planned.batch_size),
            f"{parameters / 1e6:.1f}",
            f"{traced.flops / 1e12:.2f}",
            f"{traced.peak / 2**30:.1f}",
        ]
        if args.steps:
            regions = labels.has_regions
            second, mixed = seconds_per_step(network, shape, shapes, regions, device, args.steps)
            voxels = planned.batch_size * float(torch.tensor(planned.patch_size).prod()) / 1e6
            cells += [f"{second:.1f}", f"{second / voxels:.1f}", f"{mixed:.1f}"]
        else:
            cells += ["-"] * 3
        print(row(cells), flush=True)


if __name__ == "__main__":
    main()
