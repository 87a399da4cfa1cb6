"""nnU-Net's commands that run our code, one after the other, as a user types them.

Each takes seconds to start, and so does each of its worker processes. What find_best_configuration, ensembles
and exported models do is in tests/planners/nnunet/test_tasks.py, without processes.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from dinomed3d.cli.demo.nnunet_commands import NnUNetCommands
from dinomed3d.cli.demo.phantom import PhantomSpec, write_phantom
from dinomed3d.cli.doctor.folders import NNUNET_FOLDERS
from dinomed3d.training.checkpoints.checkpoint import read_checkpoint
from tests import ROOT
from tests.nnunet_here import PoolHere, few_samples, narrow

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
def test_train_continue_validate_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1", "OMP_NUM_THREADS": "1"}
    shims = ROOT / "dinomed3d" / "shims"
    quick |= {"nnUNet_extTrainer": str(shims)} if shims.is_dir() else {}
    raw = tmp_path / "nnUNet_raw" / "Dataset901_Phantom"
    names = write_phantom(raw, PhantomSpec(training_cases=5, test_cases=1, shape_zyx=(8, 24, 24)))
    plan_and_preprocess(tmp_path, monkeypatch)

    def run(command: str, *arguments: str, **settings: str) -> None:
        stock = NnUNetCommands(root=tmp_path, settings=quick | settings)
        stock.run(command, arguments, log=tmp_path / f"{command}.log")

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
    run("nnUNetv2_predict", *where, *chosen, "-npp", "0", "-nps", "0", "--disable_tta")
    assert [p.name for p in out.glob("*.nii.gz")] == [f"{names[0]}.nii.gz"]


def plan_and_preprocess(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nnUNetv2_plan_and_preprocess does, with nothing of ours in it, here and at once."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )

    for name in NNUNET_FOLDERS:
        monkeypatch.setenv(name, str(root / name))
    here = SimpleNamespace(Pool=PoolHere)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda method=None: here)
        patch.setattr("nnunetv2.utilities.utils.Pool", PoolHere)
        extract_fingerprint_dataset(901, few_samples(), num_processes=1)
        plan_experiment_dataset(901, narrow(ExperimentPlanner, 4))
        preprocess_dataset(901, "nnUNetPlans", ("3d_fullres",), [1], show_progress_bar=False)


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
