"""nnU-Net's own commands, one after the other, as a user types them: nothing of ours is called by hand.

Each takes seconds to start. What find_best_configuration, ensembles and exported models do is in
tests/planners/nnunet/test_tasks.py, without processes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dinomed3d.cli.demo.nnunet_commands import NnUNetCommands
from dinomed3d.cli.demo.phantom import PhantomSpec, write_phantom
from dinomed3d.training.checkpoints.checkpoint import read_checkpoint
from tests import ROOT

TRAIN = {
    "DINOMED3D_WEIGHTS": "none",
    "DINOMED3D_ENCODER_OVERRIDES": '{"embed_dim": 24, "depth": 2, "num_heads": 2}',
    "DINOMED3D_STAGE1_EPOCHS": "1",
    "DINOMED3D_STAGE2_EPOCHS": "1",
    "DINOMED3D_ITERATIONS_PER_EPOCH": "2",
    "DINOMED3D_VAL_ITERATIONS_PER_EPOCH": "1",
}
MODEL = ("901", "3d_fullres", "0", "-tr", "DinoMed3DTrainer", "-device", "cpu")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_plan_train_continue_validate_predict(tmp_path: Path) -> None:
    quick = {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1", "OMP_NUM_THREADS": "1"}
    shims = ROOT / "dinomed3d" / "shims"
    quick |= {"nnUNet_extTrainer": str(shims)} if shims.is_dir() else {}
    raw = tmp_path / "nnUNet_raw" / "Dataset901_Phantom"
    names = write_phantom(raw, PhantomSpec(training_cases=5, test_cases=1, shape_zyx=(8, 24, 24)))

    def run(command: str, *arguments: str, **settings: str) -> None:
        stock = NnUNetCommands(root=tmp_path, settings=quick | settings)
        stock.run(command, arguments, log=tmp_path / f"{command}.log")

    run("nnUNetv2_plan_and_preprocess", "-d", "901", "-c", "3d_fullres", "-np", "1", "-npfp", "1")
    kill_in_the_middle(NnUNetCommands(root=tmp_path, settings=quick | TRAIN))
    model = tmp_path / "nnUNet_results" / "Dataset901_Phantom"
    model = model / "DinoMed3DTrainer__nnUNetPlans__3d_fullres"
    assert read_checkpoint(model / "fold_0" / "checkpoint_latest.pth")["current_epoch"] < 2
    run("nnUNetv2_train", *MODEL, "--c")  # with none of the settings of training
    fold = model / "fold_0"
    assert (fold / "progress.png").stat().st_size > 10_000
    summary = json.loads((fold / "validation" / "summary.json").read_text())
    assert set(summary["mean"]) == {"1", "2", "3"}
    chosen = ("-c", "3d_fullres", "-f", "0", "-tr", "DinoMed3DTrainer")
    out = tmp_path / "out"
    where = ("-i", str(raw / "imagesTs"), "-o", str(out), "-d", "901", "-device", "cpu")
    run("nnUNetv2_predict", *where, *chosen, "-npp", "1", "-nps", "1", "--disable_tta")
    assert [p.name for p in out.glob("*.nii.gz")] == [f"{names[0]}.nii.gz"]


def kill_in_the_middle(stock: NnUNetCommands) -> None:
    """Train and kill the process, hard, as soon as its first epoch has begun."""
    program = Path(sys.executable).parent / "nnUNetv2_train"
    log = stock.root / "killed.log"
    with open(log, "w") as stream:
        child = psutil.Popen(
            [str(program), *MODEL],
            env=stock.environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 120
        while "Epoch 0 of 2" not in log.read_text() and child.poll() is None:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
    assert child.poll() is None, log.read_text()
    for process in [*child.children(recursive=True), child]:  # nnU-Net's workers outlive it
        process.kill()
    child.wait()
