"""The planner on real data with several channels and overlapping regions: four brain tumour cases.

Two channels (FLAIR, T1 with contrast), three regions (whole tumour, core, enhancing), a split of our own:
three cases train, the fourth is predicted. All through the stock commands with `-pl DinoMed3DPlanner`
and `-tr DinoMed3DTrainer`; a small random encoder, as no weights are at hand. Three training cases show
that the path works and learns; they say nothing about what the method reaches.

    python examples/benchmarks/brats.py FOLDER_OF_CASES --work WORK_FOLDER --epochs 2 8
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import time
from pathlib import Path

import SimpleITK as sitk

from dinomed3d.cli.nnunet_commands import Stock

DATASET = "Dataset137_BrainTumour"
CHANNELS = {"Flair": "Flair_subtrMeanDivStd.nii.gz", "T1c": "T1c_subtrMeanDivStd.nii.gz"}
LABELS = {"background": 0, "whole tumour": [1, 2, 3, 4], "core": [1, 3, 4], "enhancing": [4]}
SETTINGS = {
    "DINOMED3D_WEIGHTS": "none",
    "DINOMED3D_ENCODER_OVERRIDES": json.dumps(
        {"embed_dim": 192, "depth": 6, "num_heads": 3, "init_values": 1.0}
    ),
    "DINOMED3D_VOXELS_PER_TOKEN": "8",
    "nnUNet_n_proc_DA": "1",
}


def write_raw(cases: list[Path], raw: Path) -> None:
    """nnU-Net's raw form; the last case is the test image."""
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (raw / name).mkdir(parents=True)
    for case in cases:
        # nnU-Net wants a validation case, so the last one is in both; it trains nothing
        for part in ("Tr", "Ts") if case == cases[-1] else ("Tr",):
            for number, file in enumerate(CHANNELS.values()):
                shutil.copy(case / file, raw / f"images{part}" / f"{case.name}_{number:04}.nii.gz")
            labels = sitk.Cast(sitk.ReadImage(str(case / "OTMultiClass.nii.gz")), sitk.sitkUInt8)
            sitk.WriteImage(labels, str(raw / f"labels{part}" / f"{case.name}.nii.gz"))
    content = {
        "channel_names": {str(i): name for i, name in enumerate(CHANNELS)},
        "labels": LABELS,
        "regions_class_order": [2, 1, 4],
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(content, indent=2))
    names = [case.name for case in cases]
    splits = [{"train": names[:-1], "val": names[-1:]}]
    (raw / "splits_final.json").write_text(json.dumps(splits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with one folder per case")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--memory", type=float, default=6.0, help="GiB, the planner's target")
    parser.add_argument("--epochs", type=int, nargs=2, default=(2, 8), metavar=("I", "II"))
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    cases = sorted(p for p in args.data.iterdir() if p.is_dir())
    stock = Stock(
        root=args.work,
        settings=SETTINGS
        | {
            "DINOMED3D_STAGE1_EPOCHS": str(args.epochs[0]),
            "DINOMED3D_STAGE2_EPOCHS": str(args.epochs[1]),
            "DINOMED3D_ITERATIONS_PER_EPOCH": str(args.iterations),
            "DINOMED3D_VAL_ITERATIONS_PER_EPOCH": "1",
        },
    )
    raw = args.work / "nnUNet_raw" / DATASET
    for folder in ("nnUNet_preprocessed", "nnUNet_results"):
        (args.work / folder).mkdir(parents=True, exist_ok=True)
    if not raw.exists():
        write_raw(cases, raw)
    logs, out = args.work / "logs", args.work / "predicted"
    logs.mkdir(exist_ok=True)
    trained = ["-tr", "DinoMed3DTrainer", "-p", "DinoMed3DPlans"]
    common = ["-d", "137", "-c", "3d_fullres"]
    seconds = {}
    seconds["plan"] = stock.run(
        "nnUNetv2_plan_and_preprocess",
        [*common, "-pl", "DinoMed3DPlanner", "-gpu_memory_target", f"{args.memory:g}", "-np", "1",
         "-npfp", "1", "--clean"],
        log=logs / "plan.txt",
    )  # fmt: skip
    seconds["train and validate"] = stock.run(
        "nnUNetv2_train",
        ["137", "3d_fullres", "0", *trained, "-device", args.device],
        log=logs / "train.txt",
    )
    seconds["predict"] = stock.run(
        "nnUNetv2_predict",
        [*common, "-i", str(raw / "imagesTs"), "-o", str(out), "-f", "0", *trained, "-device",
         args.device, "-npp", "1", "-nps", "1", "--disable_tta"],
        log=logs / "predict.txt",
    )  # fmt: skip
    folder = args.work / "nnUNet_results" / DATASET / "DinoMed3DTrainer__DinoMed3DPlans__3d_fullres"
    stock.run(
        "nnUNetv2_evaluate_folder",
        [str(raw / "labelsTs"), str(out), "-djfile", str(folder / "dataset.json"), "-pfile",
         str(folder / "plans.json"), "-np", "1"],
        log=logs / "evaluate.txt",
    )  # fmt: skip
    plan = json.loads((folder / "plans.json").read_text())["configurations"]["3d_fullres"]
    print(
        f"{len(cases) - 1} training cases, {args.epochs[0]} + {args.epochs[1]} epochs of {args.iterations} steps, "
        f"patch {plan['patch_size']}, batch {plan['batch_size']}; {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"
    )
    print(", ".join(f"{what} {s:.0f} s" for what, s in seconds.items()))
    summary = json.loads((out / "summary.json").read_text())
    print("| region | Dice | voxels found | voxels true |\n|---|---|---|---|")
    for key, name in zip(summary["mean"], list(LABELS)[1:], strict=True):
        row = summary["mean"][key]
        print(f"| {name} {key} | {row['Dice']:.3f} | {row['n_pred']:.0f} | {row['n_ref']:.0f} |")


if __name__ == "__main__":
    main()
