"""Several processes: the same gradients as one, the same parameters in all, and an exact resume."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from dinomed3d.runtime.errors import UserError
from dinomed3d.training.step import distributed
from tests.dinomed3d.training.conftest import prepare
from tests.dinomed3d.training.step import two_processes
from tests.dinomed3d.training.step.two_processes import (
    CASES,
    VARIANTS,
    gradients,
    joined_batch,
    trainer,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two processes over gloo have done all of two_processes.py; the folder they left."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("torch was built without gloo")
    folder = tmp_path_factory.mktemp("two_processes")
    with pytest.MonkeyPatch.context() as patch:
        prepare(folder, patch)
        children = torch.multiprocessing.spawn(
            two_processes.work, args=(folder,), nprocs=2, join=False
        )
        deadline = time.monotonic() + 240
        try:
            while not children.join(timeout=1):  # raises what a child raised
                assert time.monotonic() < deadline, "the two processes wait for each other"
        finally:
            for child in children.processes:
                child.kill()
        yield folder


def results(folder: Path, name: str) -> list[dict]:
    return [torch.load(folder / f"{name}_{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_are_those_of_one_process_on_the_whole_batch(both, name):
    first, second = (found[name] for found in results(both, "gradients"))
    stage, labels, batch_dice = CASES[VARIANTS[name][0]]
    t = trainer(labels=labels, batch_dice=batch_dice)
    t.initialize()
    t.network.load_state_dict(first["weights"])
    expected = gradients(t, stage, *joined_batch(labels))
    assert first["gradients"].keys() == second["gradients"].keys() == expected.keys()
    for parameter, gradient in expected.items():
        assert torch.equal(first["gradients"][parameter], second["gradients"][parameter]), parameter
        assert torch.allclose(first["gradients"][parameter], gradient, rtol=1e-3, atol=1e-5), (
            parameter
        )


def test_the_parameters_stay_the_same_in_both(both):
    for training in ("whole", "resumed in epoch 1", "resumed in epoch 3"):
        first, second = (found[training] for found in results(both, "trainings"))
        for key, value in first["weights"].items():
            assert torch.equal(value, second["weights"][key]), key
        assert first["losses"] == second["losses"] and len(first["losses"]) == 4
        assert first["validation"] == second["validation"]


@pytest.mark.parametrize("epoch", [1, 3])
def test_each_resumes_to_the_same_trajectory(both, epoch):
    """Also what it draws: every process has its own random generators, and gets them back."""
    for found in results(both, "trainings"):
        whole, resumed = found["whole"], found[f"resumed in epoch {epoch}"]
        assert resumed["losses"] == whole["losses"]
        for key, value in whole["weights"].items():
            assert torch.equal(resumed["weights"][key], value), key
        assert resumed["drawn"].keys() == {(e, i) for e in range(epoch, 4) for i in range(2)}
        assert all(torch.equal(data, whole["drawn"][k]) for k, data in resumed["drawn"].items())
    first, second = (found["whole"]["drawn"] for found in results(both, "trainings"))
    assert all(not torch.equal(first[k], second[k]) for k in first)


def test_one_process_goes_on_where_two_were(both, capsys):
    t = trainer(fold=2, continued=True)
    t.load_checkpoint(str(Path(t.output_folder) / "checkpoint_latest.pth"))
    t.run_training()
    assert "is of a training on 2 GPUs, this one has 1" in capsys.readouterr().out
    assert len(t.logger.get_value("train_losses", step=None)) == 4


def test_no_half_written_file_is_left(both):
    folder = next((both / "results" / "Dataset901_Tiny").iterdir()) / "fold_0"
    names = sorted(path.name for path in folder.iterdir() if "checkpoint" in path.name)
    assert names == ["checkpoint_best.pth", "checkpoint_final.pth"]


def test_batches_that_cannot_be_split_evenly_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: 4)
    distributed.check_batch(8)
    for batch, fitting in ((6, 3), (1, 1)):
        with pytest.raises(UserError, match=f"batch of {batch} .*-num_gpus {fitting}"):
            distributed.check_batch(batch)
