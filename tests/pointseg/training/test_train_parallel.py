"""Two processes train one model: the same weights in both, every scene shared, one log."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import ROOT

WORKER = """
import os, sys
from dataclasses import replace
from pathlib import Path
import torch
from pointseg.training.loop import TrainingLoop
from pointseg.training.train import train
from lightning_fabric import Fabric
from tests.pointseg.tiny import RECIPE, Boxes, spec

torch.set_num_threads(1)
out, kept, end = Path(sys.argv[1]), [], TrainingLoop.run
def to_the_end(run):
    kept.append(run)
    if len(kept) == 1:
        run.steps = 5  # as if it had been stopped there
    end(run)
TrainingLoop.run = to_the_end
recipe = replace(RECIPE, evaluations=4)
for resume in (False, True):
    train(spec(out, dataset=Boxes(validated=1), recipe=recipe, devices=2, resume=resume))
_, run = kept
validated = run.validate()
rank = os.environ["RANK"]
found = {"weights": dict(run.learner.network.named_parameters())}
found["matrix"] = validated
torch.save(found, out / f"rank{rank}.pt")
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run_both(out: Path) -> None:
    """Begin, stop, and resume, without starting Python and torch twice."""
    common = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "TORCHELASTIC_RUN_ID": "test",  # what torchrun sets
        "GROUP_RANK": "0",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(out)],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for rank in range(2)
    ]
    try:
        ends = [process.communicate(timeout=500)[1] for process in processes]
    finally:
        for process in processes:  # one that waits for the other
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(ends)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="needs torch with gloo",
)
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    run_both(tmp_path)
    one, two = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert one["weights"].keys() == two["weights"].keys()
    assert all(torch.equal(one["weights"][key], two["weights"][key]) for key in one["weights"])
    # the one validation scene counted once, while the other process had none
    assert torch.equal(one["matrix"], two["matrix"])
    from pointseg.loading.samples import Samples
    from tests.pointseg.tiny import RECIPE, Boxes

    samples = Samples(Boxes(), RECIPE, training=False, seed=0)
    labelled = int((samples[(0, 0)].segment >= 0).sum())
    assert int(one["matrix"].sum()) == labelled
    with (tmp_path / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps)) and steps[-1] == 10
