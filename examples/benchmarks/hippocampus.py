"""DinoMed3DTrainer against nnU-Net's own trainer at equal wall-clock training time, on real MRI.

Every arm is trained and predicted with the stock commands (`nnUNetv2_train`, `nnUNetv2_predict`) on fold 0 of
MSD Task04 and its 40 test images, which `dinomed3d evaluate` scores. A few short epochs first measure an arm's
seconds per epoch on this machine (run nothing else meanwhile); its number of epochs follows from that, so
that its schedule ends with the time, and a later disturbance does not cost iterations. Measured speeds and
finished arms are kept: a second call adds what is missing.

    python examples/benchmarks/hippocampus.py DATASET_FOLDER --work WORK_FOLDER --minutes 20
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from command import Measured, machine, measure, program
from markdown import table

from dinomed3d.evaluation.folders import evaluate

HERE = Path(__file__).parent
ITERATIONS_PER_EPOCH = 10
SMALL_ENCODER = {
    "DINOMED3D_WEIGHTS": "none",
    # a large encoder with untrained weights would only take time
    "DINOMED3D_ENCODER": "vit_small_patch16_dinov3",
    "DINOMED3D_ENCODER_OVERRIDES": json.dumps(
        {"embed_dim": 192, "depth": 6, "num_heads": 3, "init_values": 1.0}
    ),
    "DINOMED3D_VOXELS_PER_TOKEN": "8",
    "DINOMED3D_VAL_ITERATIONS_PER_EPOCH": "1",
}
# Every arm: trainer, what is set for it, and the share of its time that stage I gets.
ARMS: dict[str, tuple[str, dict[str, str], float]] = {
    # as users run it: the schedule of 1000 epochs of 250 iterations, stopped when the time is up
    "nnUNetTrainer": ("nnUNetTrainerShort", {"BENCHMARK_SCHEDULE": "stock"}, 0.0),
    "nnUNetTrainer, short schedule": ("nnUNetTrainerShort", {"BENCHMARK_SCHEDULE": "short"}, 0.0),
    "DinoMed3DTrainer": ("DinoMed3DTrainer", {}, 0.1),
    "no stage I": ("DinoMed3DTrainer", {}, 0.0),
    "no encoder": ("DinoMed3DTrainer", {"DINOMED3D_COMPONENTS": "detail"}, 0.0),
    "no adapters": ("DinoMed3DTrainer", {"DINOMED3D_COMPONENTS": "encoder,lora,detail"}, 0.1),
    "no detail stream": (
        "DinoMed3DTrainer",
        {"DINOMED3D_COMPONENTS": "encoder,lora,adapters"},
        0.1,
    ),
}


def nnunet(name: str, *arguments: str, env: dict[str, str], log: Path, **more: Any) -> Measured:
    """Run one of nnU-Net's console commands."""
    return measure([program(name), *arguments], env=os.environ | env, log=log, **more)


def training_log(results: Path, trainer: str, since: float) -> str:
    """nnU-Net's log of the training that began after `since`; empty before it has begun."""
    logs = results.glob(f"*/{trainer}__*/fold_0/training_log_*.txt")
    logs = [log for log in logs if os.path.getmtime(log) >= since]
    return max(logs, key=os.path.getmtime).read_text() if logs else ""


def train(
    arm: str,
    env: dict[str, str],
    work: Path,
    stage1: int,
    stage2: int,
    results: Path,
) -> tuple[list[float], float]:
    """Train an arm for so many epochs of each stage; the seconds of each epoch and the peak MiB."""
    trainer, settings, _ = ARMS[arm]
    lengths = {
        "BENCHMARK_EPOCHS": str(stage1 + stage2),
        "BENCHMARK_ITERATIONS_PER_EPOCH": str(ITERATIONS_PER_EPOCH),
        "DINOMED3D_STAGE1_EPOCHS": str(stage1),
        "DINOMED3D_STAGE2_EPOCHS": str(stage2),
        "DINOMED3D_ITERATIONS_PER_EPOCH": str(ITERATIONS_PER_EPOCH),
    }
    extra = SMALL_ENCODER | settings if trainer == "DinoMed3DTrainer" else settings
    env = env | lengths | extra | {"nnUNet_results": str(results)}
    arguments = ["4", "3d_fullres", "0", "-tr", trainer, "-device", "cpu"]
    start = time.time()
    measured = nnunet(
        "nnUNetv2_train",
        *arguments,
        env=env,
        log=work / f"{arm}.log",
        # validation of the fold would follow; the test images are what is evaluated
        done=lambda: "Training done." in training_log(results, trainer, start),
    )
    log = training_log(results, trainer, start)
    seconds = [float(s) for s in re.findall(r"Epoch time: ([\d.]+) s", log)]
    return seconds, 2**10 * measured.rss_gib


def run_arm(arm: str, minutes: float, dataset: Path, work: Path, env: dict[str, str]) -> dict:
    """Measure the speed, train for `minutes`, predict the test folder with stock commands, evaluate."""
    trainer, _, share = ARMS[arm]
    stages = (2 if share else 0, 2)
    pace_file = work / f"{arm} pace.json"
    if not pace_file.exists():
        where = work / "calibration" / arm
        seconds, _ = train(arm, env, work, *stages, where)
        pace_file.write_text(
            json.dumps([seconds[1], seconds[-1]])
        )  # each stage's first epoch warms up
    pace1, pace2 = json.loads(pace_file.read_text())
    budget = 60 * minutes
    stage1 = max(1, round(share * budget / pace1)) if share else 0
    stage2 = max(1, round((1 - share) * budget / pace2))
    results = work / f"results {minutes:g} min" / arm
    seconds, memory = train(arm, env, work, stage1, stage2, results)
    predicted = work / f"predicted {minutes:g} min" / arm
    predicted.parent.mkdir(exist_ok=True)
    env = env | {"nnUNet_results": str(results)}
    where = ["-i", str(dataset / "imagesTs"), "-o", str(predicted)]
    what = ["-d", "4", "-c", "3d_fullres", "-f", "0", "-tr", trainer, "-device", "cpu"]
    log = work / f"{arm}.log"
    prediction = nnunet("nnUNetv2_predict", *where, *what, env=env, log=log).seconds
    found = evaluate(dataset / "labelsTs", predicted)
    if found.problems:
        raise SystemExit(f"hippocampus: cases that could not be evaluated: {found.problems}")
    scores = found.per_label().drop(index="mean")
    return {
        "arm": arm,
        "dice": scores["dice"].to_dict(),
        "mean_dice": float(scores["dice"].mean()),
        "hd95_mm": scores["hd95_mm"].to_dict(),
        "iterations": [ITERATIONS_PER_EPOCH * stage1, ITERATIONS_PER_EPOCH * stage2],
        "seconds_per_iteration": [
            pace1 / ITERATIONS_PER_EPOCH if stage1 else None,
            pace2 / ITERATIONS_PER_EPOCH,
        ],
        "training_minutes": (stage1 * pace1 + stage2 * pace2) / 60,
        "logged_minutes": sum(seconds) / 60,
        "peak_training_memory_mib": memory,
        "prediction_seconds": prediction,
    }


HEADER = (
    "arm|Dice mean (1 / 2)|HD95 mm (1 / 2)|iterations I + II|s/iteration I, II"
    "|minutes planned, logged|peak MiB|predict 40 cases, s"
)


def cells(row: dict) -> list[object]:
    """A result for a table under HEADER."""
    dice = " / ".join(f"{value:.3f}" for value in row["dice"].values())
    hd95 = " / ".join(f"{value:.2f}" for value in row["hd95_mm"].values())
    return [
        row["arm"],
        f"{row['mean_dice']:.3f} ({dice})",
        hd95,
        " + ".join(map(str, row["iterations"])),
        ", ".join("–" if s is None else f"{s:.2f}" for s in row["seconds_per_iteration"]),
        f"{row['training_minutes']:.1f}, {row['logged_minutes']:.1f}",
        round(row["peak_training_memory_mib"]),
        f"{row['prediction_seconds']:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="Dataset004_Hippocampus in nnU-Net's raw form")
    parser.add_argument("--work", type=Path, required=True, help="folder for all output")
    parser.add_argument("--minutes", type=float, default=20, help="training time of each arm")
    parser.add_argument("--arms", nargs="+", default=list(ARMS)[:2], choices=list(ARMS))
    args = parser.parse_args()
    work = args.work.resolve()
    raw = work / "raw" / "Dataset004_Hippocampus"
    env = {
        "nnUNet_raw": str(work / "raw"),
        "nnUNet_preprocessed": str(work / "preprocessed"),
        "nnUNet_results": str(work / "results"),
        "nnUNet_extTrainer": str(HERE / "trainers"),
    }
    work.mkdir(parents=True, exist_ok=True)
    if not raw.exists():
        shutil.copytree(args.dataset, raw)
        prepare = ["-d", "4", "-np", "2", "-c", "3d_fullres"]
        nnunet("nnUNetv2_plan_and_preprocess", *prepare, env=env, log=work / "prepare.log")
    rows = []
    for arm in args.arms:
        file = work / f"{arm} {args.minutes:g} min.json"
        if not file.exists():
            row = run_arm(arm, args.minutes, raw, work, env)
            file.write_text(json.dumps(row, indent=1))
        rows.append(json.loads(file.read_text()))
        print(f"\n{machine()['processor']}, {os.cpu_count()} cores\n")
        print(table(HEADER, [cells(row) for row in rows]))


if __name__ == "__main__":
    main()
