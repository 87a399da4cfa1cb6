"""Do pretrained tokens pay? Dice against steps and cost, with few and with all training cases.

Every arm has the same number of steps, so that other work on the machine does no harm; the cost of a step is
measured apart (`--cost`, on quiet cores): its time, operations and memory. Arms are trained by DinoMed3DTrainer and
nnU-Net's trainers themselves on nested draws of training cases. Every `--every` steps a quarter of the test cases is
scored without mirroring, at the end all of them are. Runs that are finished are kept: a second call does what is
missing, a run that was interrupted goes on from its last evaluation, and one that fails does not end the others.
`--table` prints what is there, and draws WORK/few_cases.png. The trained models lie in WORK/results/ARM-CASES-SEED,
for `artifacts.py` or any other command.

    python examples/benchmarks/few_cases.py DATASET_FOLDER --work WORK --weights FILE \
        --cases 4 16 --seeds 0 1 2 --steps 900 --small

DATASET_FOLDER is one of nnU-Net's raw folders, with labels or regions, in 3D; its labelsTs are the test, or those
that `--splits` names, or a fifth of its cases. `--small` halves the CNN's channels and takes batches of 2, for a CPU.
On a GPU leave it out, and take DINOv3's weights; ACDC with nnU-Net's residual networks and PrimusV3-S as further arms:

    python examples/benchmarks/few_cases.py nnUNet_raw/Dataset027_ACDC --work acdc --weights dinov3_vits16.pth \
        --arms adapters permuted-adapters cnn stock resenc-m resenc-l primus-v3-s --cases 4 16 all --seeds 0 1 2 \
        --steps 25000 --every 1000 --device cuda
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__)


def main() -> None:
    """Do the runs that are missing, one process after the other, then print the tables."""
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "nnUNet_raw": str(args.work / "raw"),
        "nnUNet_preprocessed": str(args.work / "preprocessed"),
    }
    os.environ.setdefault("nnUNet_results", str(args.work / "results"))
    if args.run:
        run_here(args)
        return
    failed = [] if args.table else all_runs(args)
    from few_cases_table import picture, results, summary

    if results(args.work):
        print(summary(args.work))
        picture(args.work)
    if failed:
        sys.exit(
            f"few_cases: failed, see above: {', '.join(failed)}; the same command tries them again"
        )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--weights", help="file or folder with the encoder's weights")
    parser.add_argument("--encoder", help="default: that of the weights")
    parser.add_argument(
        "--token", help="voxels per token; default: as training decides by the patch"
    )
    parser.add_argument(
        "--arms", nargs="+", default=["adapters", "permuted-adapters", "cnn", "stock"]
    )
    parser.add_argument("--cases", nargs="+", default=["4", "16"], help="numbers, or all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument(
        "--splits", type=Path, help="nnU-Net's splits_final.json: fold 0 is the test"
    )
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--cost", action="store_true", help="only measure a step of each arm")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.table and not args.run and args.weights is None:
        parser.error("--weights must name the encoder's file")
    return args


def all_runs(args: argparse.Namespace) -> list[str]:
    """Prepare what is missing and do the runs; the names of those that failed."""
    from few_cases_arms import ARMS
    from few_cases_data import permute, plan_arms, prepare

    from dinomed3d.lifting import find_weights
    from planners.nnunet.identify_encoder import encoder_of_weights

    unknown = [arm for arm in args.arms if arm not in ARMS]
    if unknown:
        sys.exit(f"few_cases: --arms must be of {', '.join(ARMS)}, got {', '.join(unknown)}")
    weights = find_weights(args.weights, hub_repository="").resolve()
    encoder = args.encoder or encoder_of_weights(str(weights))
    prepare(args.dataset, args.work, small=args.small, splits=args.splits)
    plan_arms(args.dataset, args.work, [ARMS[arm] for arm in args.arms], small=args.small)
    permute(weights, args.work / "permuted.safetensors")
    os.environ |= {"DINOMED3D_WEIGHTS": str(weights), "DINOMED3D_ENCODER": encoder}
    if args.token:
        os.environ["DINOMED3D_VOXELS_PER_TOKEN"] = args.token
    there = len((args.work / "training.txt").read_text().split())
    numbers = {"all": there} | {str(number): number for number in range(1, there + 1)}
    sizes = [numbers.get(cases, 0) for cases in args.cases]
    if 0 in sizes:
        sys.exit(
            f"few_cases: --cases must be from 1 to {there}, or all, got {' '.join(args.cases)}"
        )
    draws = [(cases, seed) for cases in sizes for seed in args.seeds]
    failed = []
    for cases, seed in draws[:1] if args.cost else draws:
        for arm in args.arms:
            run = {"arm": arm, "cases": cases, "seed": seed, "every": args.every}
            run["steps"] = 0 if args.cost else args.steps
            if not args.cost and (args.work / f"runs/{arm}-{cases}-{seed}.json").is_file():
                continue
            command = [sys.executable, str(HERE), *sys.argv[1:], "--run", json.dumps(run)]
            if subprocess.run(command).returncode:
                failed.append(f"{arm}-{cases}-{seed}")
    return failed


def run_here(args: argparse.Namespace) -> None:
    """Do one run in this process."""
    from few_cases_arms import ARMS
    from few_cases_data import plans_of
    from few_cases_run import execute
    from few_cases_trainers import Run

    # planning needs at least one; small volumes are augmented in a hundredth of a step
    os.environ["nnUNet_n_proc_DA"] = "0" if args.device == "cpu" else "12"
    torch.set_num_threads(args.threads)
    run = Run(**json.loads(args.run))
    execute(
        run,
        args.work,
        plans=plans_of(ARMS[run.arm], args.work),
        dataset=json.loads((args.dataset / "dataset.json").read_text()),
        device=torch.device(args.device),
    )


if __name__ == "__main__":
    main()
