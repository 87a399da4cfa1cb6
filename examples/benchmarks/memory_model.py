"""The planner's memory and arithmetic compared with traced steps, for plans of twelve kinds of data.

The tracer runs the network's and nnU-Net's own code on fake tensors and sees every allocation; on CUDA
(`--device cuda`) the peak of real steps is measured as well. Plans that need more memory than there is
are left out there.

    python examples/benchmarks/memory_model.py
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from typing import Any

import torch
from fingerprints import FINGERPRINTS, size
from markdown import row, table
from traced_steps import (
    build,
    nnunet_loss,
    step_inputs,
    step_loss,
    trace_predicting,
    trace_training,
)

from dinomed3d.training.step.precision import autocast
from planners.sizing import DatasetStats, Sizing


def settings_of(sizing: Sizing, stats: DatasetStats, stage: int) -> dict[str, Any]:
    """The arguments with which a step of a stage is built."""
    return {
        "stage": stage,
        "channels": stats.channels,
        "classes": stats.classes,
        "checkpointing": sizing.trial.checkpointing,
    }


def cuda_peak(sizing: Sizing, stats: DatasetStats, stage: int) -> float:
    """Peak memory of real steps on the GPU, bytes; nan where they do not fit."""
    with torch.device("cuda"):
        network = build(sizing.spec, **settings_of(sizing, stats, stage))
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], fused=True)
    inputs = step_inputs(
        network,
        sizing.trial.patch,
        stage=stage,
        batch=sizing.trial.batch,
        channels=stats.channels,
        slices=sizing.recipe["stage1_slices"],
    )
    batch = {name: torch.zeros(s, dtype=kind, device="cuda") for name, (s, kind) in inputs.items()}
    compute = step_loss(network, stage=stage, loss=nnunet_loss())
    try:
        for _ in range(2):
            torch.cuda.reset_peak_memory_stats()
            optimizer.zero_grad(set_to_none=True)
            with autocast(torch.device("cuda")):
                value = compute(**batch)
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
    cuda = args.device == "cuda"
    header = "data|GiB|encoder|patch|step|GiB counted / traced|TFLOP counted / traced"
    print(table(header + "|GiB counted / CUDA" * cuda, []))
    ratios: list[float] = []
    for name in list(FINGERPRINTS)[: 1 if args.quick else None]:
        for memory_gib in args.memory[: 1 if args.quick else None]:
            for cells in compare(name, memory_gib, ratios, cuda=cuda):
                print(row(cells), flush=True)
    print(
        f"\ncounted / traced peak of training: {min(ratios):.3f} to {max(ratios):.3f} over {len(ratios)} steps"
    )


def compare(
    name: str, memory_gib: float, ratios: list[float], *, cuda: bool
) -> Iterator[list[str]]:
    """Rows of one kind of data: both stages and prediction; ratios of training are added to `ratios`."""
    stats, sizing = FINGERPRINTS[name].stats, size(name, memory_gib)
    assert sizing.stage_one is not None
    encoder = sizing.spec.encoder[4:].split("_patch")[0]
    head = [name, f"{memory_gib:g}", encoder, " x ".join(map(str, sizing.trial.patch))]
    slices = sizing.recipe["stage1_slices"]
    for stage, cost in ((1, sizing.stage_one), (2, sizing.stage_two)):
        settings = settings_of(sizing, stats, stage)
        trial = sizing.trial
        traced = trace_training(
            trial.spec, trial.patch, batch=trial.batch, slices=slices, **settings
        )
        ratios.append(cost.peak / traced.peak)
        step = f"I, {slices}" if stage == 1 else f"II, {sizing.trial.batch}"
        peaks = [ratio(cost.peak, traced.peak, 2**30), ratio(cost.flops, traced.flops, 1e12)]
        real = [ratio(cost.peak, cuda_peak(sizing, stats, stage), 2**30)] if cuda else []
        yield [*head, step, *peaks, *real]
    traced_peak = trace_predicting(
        sizing.spec, sizing.trial.patch, channels=stats.channels, classes=stats.classes
    )
    yield [*head, "predicting", ratio(sizing.prediction, traced_peak, 2**30), "", *[""] * cuda]


def ratio(counted: float, measured: float, unit: float) -> str:
    """Both figures in a unit, and their ratio."""
    return f"{counted / unit:.2f} / {measured / unit:.2f} = {counted / measured:.3f}"


if __name__ == "__main__":
    main()
