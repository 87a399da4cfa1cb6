"""Do pretrained tokens pay? Dice against steps and cost, with few and with all training cases.

Every arm has the same number of steps, so that other work on the machine does no harm; the cost of a step is
measured apart (`--cost`, on quiet cores). Arms are trained by DinoMed3DTrainer and nnUNetTrainer themselves on
nested draws of training cases. Every `--every` steps a quarter of the test cases is scored without mirroring, at
the end all of them are. Runs that are finished are kept: a second call does what is missing, `--table` prints
what is there. The trained models lie in WORK/results/ARM-CASES-SEED, for `artifacts.py` or any other command.

    python examples/benchmarks/few_cases.py DATASET_FOLDER --work WORK --weights FILE \
        --encoder vit_small_patch14_dinov2 --cases 4 16 --seeds 0 1 2 --steps 900 --small

DATASET_FOLDER is one of nnU-Net's raw folders; its labelsTs are the test, or where there are none, fold 0's
validation cases. `--small` halves the CNN's channels and takes batches of 2, for a CPU. On a GPU leave it out, name
DINOv3's weights, and give `--steps 25000 --every 1000 --device cuda`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__)
CONFIGURATION = "3d_fullres"


def prepare(dataset: Path, work: Path, *, small: bool) -> None:
    """Plan and preprocess with nnU-Net, and keep the test cases on the network's grid."""
    if (work / "plans.json").is_file():
        return
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    number = int(dataset.name[7:10])
    for name in ("raw", "preprocessed", "results"):
        (work / name).mkdir(parents=True, exist_ok=True)
    link = work / "raw" / dataset.name
    if not link.exists():
        link.symlink_to(dataset.resolve(), target_is_directory=True)
    extract_fingerprints([number], num_processes=1)
    plan_experiments([number])
    preprocess([number], configurations=(CONFIGURATION,), num_processes=(1,))
    folder = work / "preprocessed" / dataset.name
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    description = json.loads((dataset / "dataset.json").read_text())
    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    cases = {
        p.name.removesuffix(".pkl") for p in (folder / configuration.data_identifier).glob("*.pkl")
    }
    ending = description["file_ending"]
    tests = {p.name.removesuffix(ending) for p in (dataset / "labelsTs").glob(f"*{ending}")}
    images, labels = ("imagesTs", "labelsTs") if tests else ("imagesTr", "labelsTr")
    if not tests:
        order = np.random.default_rng(0).permutation(sorted(cases))
        tests = set(order[: max(1, len(order) // 5)].tolist())
    (work / "training.txt").write_text("\n".join(sorted(cases - tests)))
    (work / "tests").mkdir(exist_ok=True)
    for test in sorted(tests):
        files = sorted(str(p) for p in (dataset / images).glob(f"{test}_[0-9]*{ending}"))
        data, truth, _ = DefaultPreprocessor(verbose=False).run_case(
            files, str(dataset / labels / f"{test}{ending}"), manager, configuration, description
        )
        np.savez(work / "tests" / f"{test}.npz", data=data.astype(np.float32), truth=truth[0])
    if small:
        entry = plans["configurations"][CONFIGURATION]
        entry["batch_size"] = 2
        kwargs = entry["architecture"]["arch_kwargs"]
        kwargs["features_per_stage"] = [width // 2 for width in kwargs["features_per_stage"]]
    (work / "plans.json").write_text(json.dumps(plans))


def permute(weights: Path, out: Path) -> None:
    """The same tensors with their entries in another order: a random control of the same statistics."""
    from safetensors.torch import load_file, save_file

    if out.is_file():
        return
    generator = torch.Generator().manual_seed(0)
    save_file(
        {
            name: tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].view_as(
                tensor
            )
            for name, tensor in sorted(load_file(weights).items())
        },
        out,
    )


def results(work: Path) -> list[dict[str, Any]]:
    """All finished runs."""
    return [json.loads(p.read_text()) for p in sorted((work / "runs").glob("*.json"))]


def summary(work: Path) -> str:
    """Mean and standard error over seeds: one row per arm and number of cases."""
    from few_cases_arms import ARMS
    from markdown import table

    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for result in results(work):
        groups.setdefault((result["cases"], result["arm"]), []).append(result)
    order = list(ARMS)
    rows = []
    for (cases, arm), runs in sorted(groups.items(), key=lambda g: (g[0][0], order.index(g[0][1]))):
        scores = [np.array(run["scores"], dtype=float) for run in runs]  # (case, label, 3)
        mean = [np.nanmean(s, axis=(0, 1)) for s in scores]
        spreads = [spelled([m[i] for m in mean]) for i in range(3)]
        shuffled = spelled([run["shuffled_dice"] for run in runs])
        rows.append([cases, ARMS[arm].what, len(runs), runs[0]["steps"], *spreads, shuffled])
    return table(
        "cases|arm|seeds|steps|Dice|HD95 mm|surface Dice (1 mm)|Dice, slices shuffled", rows
    )


def spelled(values: list[float]) -> str:
    """Mean, and the standard error where there are several."""
    mean = f"{np.mean(values):.3f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.3f}"


def picture(work: Path) -> None:
    """Curves of Dice against steps, and against cost where it was measured: WORK/few_cases.png."""
    import matplotlib

    matplotlib.use("Agg")
    from few_cases_arms import ARMS
    from matplotlib import pyplot

    runs = results(work)
    cost_file = work / "cost.json"
    cost = json.loads(cost_file.read_text()) if cost_file.is_file() else {}
    sizes = sorted({run["cases"] for run in runs})
    rows = 2 if cost else 1
    figure, axes = pyplot.subplots(
        rows, len(sizes), figsize=(5 * len(sizes), 4 * rows), squeeze=False, sharey="col"
    )
    for column, cases in enumerate(sizes):
        for color, arm in enumerate(ARMS):
            curves = [r["curve"] for r in runs if (r["arm"], r["cases"]) == (arm, cases)]
            if not curves:
                continue
            length = min(map(len, curves))
            steps = np.array([point[0] for point in curves[0][:length]])
            dice = np.array([[point[1] for point in curve[:length]] for curve in curves])
            for row, scale in enumerate([1.0, cost.get(arm, {}).get("seconds")][:rows]):
                if scale is None:
                    continue
                axis = axes[row, column]
                axis.plot(steps * scale, dice.mean(0), color=f"C{color}", label=ARMS[arm].what)
                if len(curves) > 1:
                    low, high = dice.min(0), dice.max(0)
                    axis.fill_between(steps * scale, low, high, color=f"C{color}", alpha=0.15)
        axes[0, column].set_title(f"{cases} training cases")
        axes[0, column].set_xlabel("optimizer steps")
        if cost:
            axes[1, column].set_xlabel("training time on quiet cores, s")
    for axis in axes[:, 0]:
        axis.set_ylabel("mean Dice of the test cases")
    axes[0, 0].legend(fontsize="small", loc="lower right")
    figure.tight_layout()
    figure.savefig(work / "few_cases.png", dpi=110)


def main() -> None:
    """Do the runs that are missing, one process after the other, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--encoder", default="vit_small_patch14_dinov2")
    parser.add_argument("--token", default="4", help="voxels per token")
    parser.add_argument("--arms", nargs="+", default=["dino", "permuted", "cnn", "stock"])
    parser.add_argument("--cases", nargs="+", type=int, default=[4, 16])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--cost", action="store_true", help="only time a step of each arm")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "nnUNet_raw": str(args.work / "raw"),
        "nnUNet_preprocessed": str(args.work / "preprocessed"),
    }
    os.environ.setdefault("nnUNet_results", str(args.work / "results"))
    if args.run:
        from few_cases_arms import Run, execute

        # planning needs at least one; small volumes are augmented in a hundredth of a step
        os.environ["nnUNet_n_proc_DA"] = "0" if args.device == "cpu" else "12"
        torch.set_num_threads(args.threads)
        execute(
            Run(**json.loads(args.run)),
            args.work,
            plans=json.loads((args.work / "plans.json").read_text()),
            dataset=json.loads((args.dataset / "dataset.json").read_text()),
            device=torch.device(args.device),
        )
        return
    if not args.table:
        if args.weights is None:
            parser.error("--weights must name the encoder's file")
        prepare(args.dataset, args.work, small=args.small)
        permute(args.weights, args.work / "permuted.safetensors")
        os.environ |= {
            "DINOMED3D_WEIGHTS": str(args.weights.resolve()),
            "DINOMED3D_ENCODER": args.encoder,
            "DINOMED3D_VOXELS_PER_TOKEN": args.token,
        }
        draws = [(cases, seed) for cases in args.cases for seed in args.seeds]
        for cases, seed in draws[:1] if args.cost else draws:
            for arm in args.arms:
                run = {"arm": arm, "cases": cases, "seed": seed, "every": args.every}
                run["steps"] = 0 if args.cost else args.steps
                if not args.cost and (args.work / f"runs/{arm}-{cases}-{seed}.json").is_file():
                    continue
                command = [sys.executable, str(HERE), *sys.argv[1:], "--run", json.dumps(run)]
                subprocess.run(command, check=True)
    if results(args.work):
        print(summary(args.work))
        picture(args.work)


if __name__ == "__main__":
    main()
