"""A run of the benchmark with few cases that is interrupted goes on from its last evaluation."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from dinomed3d.runtime.files.tensor_files import read_torch
from tests import ROOT
from tests.dinomed3d.training.conftest import CASES, SHAPE, dataset_json, plans, prepare

sys.path.insert(0, str(ROOT / "examples" / "benchmarks"))

import few_cases_run  # noqa: E402
from few_cases_arms import ARMS  # noqa: E402
from few_cases_trainers import TRAINERS, Run  # noqa: E402


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder of the benchmark with the tiny dataset, of which one case is the test."""
    prepare(tmp_path, monkeypatch)
    (tmp_path / "training.txt").write_text("\n".join(CASES[:4]))
    (tmp_path / "tests").mkdir()
    truth = np.zeros(SHAPE, np.uint8)
    truth[2:5, 5:15, 4:12] = 1
    data = truth[None] + np.random.default_rng(0).normal(0, 0.3, (1, *SHAPE))
    np.savez(tmp_path / "tests" / "case.npz", data=data.astype(np.float32), truth=truth)
    with patch.dict(os.environ):
        yield tmp_path


def whole_plans() -> dict:
    """The tiny plans, with all that nnU-Net's own trainer builds its network from."""
    found = plans()
    architecture = found["configurations"]["3d_fullres"]["architecture"]
    parts = {
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "dropout_op": None,
        "nonlin": "torch.nn.LeakyReLU",
    }
    kinds = {"norm_op_kwargs": {"affine": True}, "nonlin_kwargs": {"inplace": True}}
    architecture["arch_kwargs"] |= parts | kinds | {"n_stages": 3, "conv_bias": True}
    architecture["_kw_requires_import"] = list(parts)
    return found


def done(
    work: Path, run: Run, monkeypatch, *, stop_after: int | None = None, unscored: bool = False
) -> dict:
    """The result of a run, which perhaps stops after so many steps of this call, or before the model is scored."""
    steps, kind = [], TRAINERS[ARMS[run.arm].trainer]
    step, score = kind.train_step, few_cases_run.test_scores

    def scoring(*args, **options):
        if unscored:
            raise KeyboardInterrupt
        return score(*args, **options)

    def stepping(trainer, batch):
        if len(steps) == stop_after:
            raise KeyboardInterrupt
        steps.append(batch)
        return step(trainer, batch)

    with monkeypatch.context() as context:
        context.setattr(kind, "train_step", stepping)
        context.setattr(few_cases_run, "test_scores", scoring)
        device = torch.device("cpu")
        few_cases_run.execute(run, work, plans=whole_plans(), dataset=dataset_json(), device=device)
    return json.loads((work / "runs" / f"{run.name}.json").read_text()) | {"made": len(steps)}


def weights_of(work: Path, run: Run) -> dict[str, torch.Tensor]:
    """The weights that a run ended with."""
    (file,) = (work / "results" / run.name).rglob("checkpoint_final.pth")
    return read_torch(file)["network_weights"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("arm", ["cnn-ema", "stock"])
def test_a_run_goes_on_after_its_last_evaluation(arm, work, monkeypatch, capsys):
    whole = Run(arm=arm, cases=4, seed=1, steps=6, every=2)
    found = done(work, whole, monkeypatch)
    expected = weights_of(work, whole)
    assert [n for n, _ in found["curve"]] == [2, 4, 6] and found["made"] == 6
    (work / "runs" / f"{whole.name}.json").unlink()

    with pytest.raises(KeyboardInterrupt):
        done(work, whole, monkeypatch, stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        done(work, whole, monkeypatch, unscored=True)
    assert f"{whole.name}: goes on after 2 steps" in capsys.readouterr().out
    again = done(work, whole, monkeypatch)
    assert [n for n, _ in again["curve"]] == [2, 4, 6] and again["made"] == 0  # scored alone
    assert again["curve"][0] == found["curve"][0] and again["cpu_s"] > 0
    if arm != "stock":  # nnU-Net's checkpoints have no random numbers
        assert again["curve"] == found["curve"] and again["scores"] == found["scores"]
        for name, tensor in weights_of(work, whole).items():
            assert torch.equal(tensor, expected[name]), name
    left = [path.name for path in work.rglob("*") if path.suffix in (".part", ".pth")]
    assert left == ["checkpoint_final.pth"]

    with pytest.raises(KeyboardInterrupt):
        done(work, whole, monkeypatch, stop_after=3)
    shorter = Run(arm=arm, cases=4, seed=1, steps=4, every=2)
    assert done(work, shorter, monkeypatch)["made"] == 4  # another run, which begins anew
