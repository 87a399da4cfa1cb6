"""One run of `few_cases.py`: an arm trained on some cases, or the cost of its step."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from few_cases_arms import ARMS, CONFIGURATION, OURS, SET_HERE, STOCK
from few_cases_scores import mean_dice, test_scores
from few_cases_trainers import TRAINERS, Run, seed_all
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor, nn
from traced_steps import Traced, fused_adamw, nnunet_loss, trace_step

TIMED_STEPS = 7
"""Steps of which the cost is the median."""


def execute(run: Run, work: Path, *, plans: dict, dataset: dict, device: torch.device) -> None:
    """Train one run to its end; write its result, WORK/runs/NAME.json, and the model, below WORK/results/NAME.

    Args:
        run: with no steps, the cost of one is measured instead, and added to WORK/cost.json.
        work: folder of the benchmark.
        plans: of nnU-Net, for this arm.
        dataset: nnU-Net's dataset.json.
        device: to train on.
    """
    set_variables(run, work)
    seed_all(run.seed)
    trainer = TRAINERS[ARMS[run.arm].trainer](
        plans | {"continue_training": False}, CONFIGURATION, 0, dataset, device
    )
    trainer.run = run
    trainer.disable_checkpointing = True
    if ARMS[run.arm].trainer != OURS:
        trainer.num_epochs = max(1, run.steps // run.every)
        trainer.num_iterations_per_epoch = run.every
        trainer.num_val_iterations_per_epoch = 1
    trainer.training = sorted((work / "training.txt").read_text().split())
    trainer.tests = sorted((work / "tests").glob("*.npz"))
    trainer.out = work / "runs" / f"{run.name}.json"
    trainer.out.parent.mkdir(exist_ok=True)
    if not run.steps:
        step_cost(trainer, work / "cost.json")
        return
    trainer.begin()
    trainer.run_training()
    with trainer.averaged():
        final = test_scores(trainer, trainer.tests, surfaces=True)
        shuffled = test_scores(trainer, trainer.tests, surfaces=False, shuffle=True)
        dice = {"dice": mean_dice(final), "shuffled_dice": mean_dice(shuffled)}
        trainer.finish({"scores": final} | dice)


def set_variables(run: Run, work: Path) -> None:
    """Settings of the arm and lengths of the run, which our trainer reads from the environment."""
    arm = ARMS[run.arm]
    for name in list(os.environ):
        if name.startswith("DINOMED3D_") and name.removeprefix("DINOMED3D_") in SET_HERE:
            del os.environ[name]
    os.environ |= {
        "DINOMED3D_STAGE1_EPOCHS": "0",
        "DINOMED3D_STAGE2_EPOCHS": str(max(1, run.steps // run.every)),
        "DINOMED3D_ITERATIONS_PER_EPOCH": str(run.every),
        "DINOMED3D_VAL_ITERATIONS_PER_EPOCH": "1",
        "nnUNet_results": str(work / "results" / run.name),
    } | {f"DINOMED3D_{name}": value for name, value in arm.settings.items()}
    if arm.permuted:
        os.environ["DINOMED3D_WEIGHTS"] = str(work / "permuted.safetensors")
    elif "encoder" not in arm.settings.get("COMPONENTS", "encoder"):
        os.environ["DINOMED3D_WEIGHTS"] = "none"


def step_cost(trainer: Any, out: Path) -> None:
    """Time a step of the arm's last stage (median of TIMED_STEPS), count its operations and memory, and add
    them to a file that all arms share."""
    trainer.on_train_start()
    trainer.current_epoch = trainer.num_epochs - 1
    trainer.on_train_epoch_start()
    seconds = []
    for _ in range(TIMED_STEPS + 2):  # two warm up
        start = time.perf_counter()
        batch = next(trainer.dataloader_train)
        float(trainer.train_step(batch)["loss"])  # waits for the device
        seconds.append(time.perf_counter() - start)
    traced = counted(trainer, batch)
    known = json.loads(out.read_text()) if out.is_file() else {}
    known[trainer.run.arm] = {
        "seconds": float(np.median(seconds[2:])),
        "tflop": traced.flops / 1e12,
        "gib": traced.peak / 2**30,
    }
    out.write_text(json.dumps(known))
    print(f"{trainer.run.arm}: {known[trainer.run.arm]['seconds']:.3f} s a step", flush=True)


def counted(trainer: Any, batch: Mapping[str, Any]) -> Traced:
    """Operations and peak memory of a step, traced in mixed precision without making it.

    Args:
        trainer: that has made a step.
        batch: of its loader.
    """
    arm, labels = ARMS[trainer.run.arm], trainer.label_manager
    network = copy.deepcopy(getattr(trainer.network, "_orig_mod", trainer.network)).to("meta")
    targets = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
    loss = DeepSupervisionWrapper(
        nnunet_loss(regions=labels.has_regions, ignore_label=labels.ignore_label),
        [1 / 2**i for i in range(len(targets))],
    )
    halo = {"halo": (trainer.halo, trainer.halo)} if arm.trainer == OURS else {}

    def step(data: Tensor, **given: Tensor) -> Tensor:
        output = network(data, **halo)
        outputs = output if isinstance(output, list | tuple) else [output]
        return loss([x.float() for x in outputs], list(given.values()))  # type: ignore[no-any-return]

    inputs = {"data": batch["data"]} | {f"target{i}": t for i, t in enumerate(targets)}
    shapes = {name: (tuple(t.shape), t.dtype) for name, t in inputs.items()}
    return trace_step(network, shapes, step, sgd if arm.trainer == STOCK else fused_adamw)


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """nnU-Net's optimizer."""
    return torch.optim.SGD(parameters, 1e-3, momentum=0.99, nesterov=True)
