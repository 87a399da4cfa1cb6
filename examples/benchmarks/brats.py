"""The planner on real data with several channels and overlapping regions: four brain tumour cases.

Two channels (FLAIR, T1 with contrast), three regions (whole tumour, core, enhancing), and our own split: three
cases for training, the fourth for testing. Everything runs through the stock commands with `-pl DinoMed3DPlanner`
and `-tr DinoMed3DTrainer`, with a small random encoder. Three training cases show that the pipeline works and
learns; they say nothing about the method's accuracy.

    python examples/benchmarks/brats.py FOLDER_OF_CASES --work WORK_FOLDER --epochs 2 8
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import SimpleITK as sitk
from command import machine, measure, program
from markdown import table

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
        # nnU-Net needs a validation case, so the last one is in both folders; it is not trained on
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
    folders = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    env = {
        **os.environ,
        **{name: str(args.work / name) for name in folders},
        **SETTINGS,
        "DINOMED3D_STAGE1_EPOCHS": str(args.epochs[0]),
        "DINOMED3D_STAGE2_EPOCHS": str(args.epochs[1]),
        "DINOMED3D_ITERATIONS_PER_EPOCH": str(args.iterations),
        "DINOMED3D_VAL_ITERATIONS_PER_EPOCH": "1",
    }
    raw = args.work / "nnUNet_raw" / DATASET
    for name in folders[1:]:
        (args.work / name).mkdir(parents=True, exist_ok=True)
    if not raw.exists():
        write_raw(cases, raw)
    out = args.work / "predicted"

    def run(name: str, *arguments: str) -> float:
        log = args.work / f"{name}.log"
        return measure([program(name), *arguments], env=env, log=log).seconds

    trained = ["-tr", "DinoMed3DTrainer", "-p", "DinoMed3DPlans"]
    common = ["-d", "137", "-c", "3d_fullres"]
    small = ["-np", "1"]
    target = ["-pl", "DinoMed3DPlanner", "-gpu_memory_target", f"{args.memory:g}"]
    where = ["-i", str(raw / "imagesTs"), "-o", str(out), "-f", "0", "-device", args.device]
    seconds = {
        "plan": run(
            "nnUNetv2_plan_and_preprocess", *common, *target, *small, "-npfp", "1", "--clean"
        ),
        "train and validate": run(
            "nnUNetv2_train", "137", "3d_fullres", "0", *trained, "-device", args.device
        ),
        "predict": run(
            "nnUNetv2_predict", *common, *where, *trained, "-npp", "1", "-nps", "1", "--disable_tta"
        ),
    }
    folder = args.work / "nnUNet_results" / DATASET / "DinoMed3DTrainer__DinoMed3DPlans__3d_fullres"
    files = ["-djfile", str(folder / "dataset.json"), "-pfile", str(folder / "plans.json")]
    run("nnUNetv2_evaluate_folder", str(raw / "labelsTs"), str(out), *files, *small)
    plan = json.loads((folder / "plans.json").read_text())["configurations"]["3d_fullres"]
    print(
        f"{len(cases) - 1} training cases, {args.epochs[0]} + {args.epochs[1]} epochs of {args.iterations} steps, "
        f"patch {plan['patch_size']}, batch {plan['batch_size']}; {machine()['processor']}, "
        f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"
    )
    print(", ".join(f"{what} {s:.0f} s" for what, s in seconds.items()))
    summary = json.loads((out / "summary.json").read_text())
    rows = []
    for key, name in zip(summary["mean"], list(LABELS)[1:], strict=True):
        found = summary["mean"][key]
        counts = (f"{found[count]:.0f}" for count in ("n_pred", "n_ref"))
        rows.append([f"{name} {key}", f"{found['Dice']:.3f}", *counts])
    print(table("region|Dice|voxels predicted|voxels in the reference", rows))


if __name__ == "__main__":
    main()
