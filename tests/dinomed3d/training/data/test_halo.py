"""Patches of training with the true slices beyond their ends, and targets without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dinomed3d.training.data.inner_target import InnerTarget
from dinomed3d.training.data.replicated_ends import CasesWithReplicatedEnds
from dinomed3d.training.data.stage_one_loader import loader_of
from dinomed3d.training.step.stages import FullSizeLogits
from dinomed3d.training.trainer import DinoMed3DTrainer
from tests.dinomed3d.training.conftest import dataset_json, plans


def trainer(configuration="3d_fullres", depth=4) -> DinoMed3DTrainer:
    plan = plans()
    if configuration == "3d_fullres":
        plan["configurations"][configuration]["patch_size"] = [depth, 20, 16]
    t = DinoMed3DTrainer(plan, configuration, 0, dataset_json(), torch.device("cpu"))
    t.initialize()
    return t


def open_gates(network: torch.nn.Module) -> None:
    """Let the tokens, which alone read the halo, have an effect: they start with none."""
    torch.manual_seed(0)
    for fusion in network.fusion.values():
        torch.nn.init.normal_(fusion.enter.weight)


@pytest.mark.parametrize(("slices", "halo"), [("1", 0), ("3", 1), ("5", 2)])
def test_patches_are_deeper_than_their_targets_by_the_halo(nnunet, monkeypatch, slices, halo):
    monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "0")
    monkeypatch.setenv("DINOMED3D_SLICES", slices)
    t = trainer()
    for batches in t.get_dataloaders():
        batch = next(batches)
        assert batch["data"].shape[2:] == (4 + 2 * halo, 20, 16)
        assert [x.shape[2] for x in batch["target"]] == [4] * len(batch["target"])
    assert t.configuration_manager.patch_size == [4, 20, 16]


def test_other_networks_and_single_slices_have_none(nnunet, monkeypatch):
    assert trainer("2d").halo == 0
    monkeypatch.setenv("DINOMED3D_COMPONENTS", "detail")
    assert trainer().halo == 0


def test_windows_hold_true_slices_and_repeat_only_true_ends(nnunet, monkeypatch):
    """Without augmentation: 8 slices of a volume of 9, numbered by their value."""

    class Case:
        identifiers = ("a",)

        def load_case(self, identifier):
            z = np.tile(np.arange(9.0)[None, :, None, None], (1, 1, 20, 16))
            return z, z.astype(np.int16), None, {"class_locations": {}}

    monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "0")
    t = trainer()
    training, loader = (loader_of(batches) for batches in t.get_dataloaders())
    assert isinstance(training._data, CasesWithReplicatedEnds) and training._data.count == 1
    loader.indices, loader.oversample_foreground_percent = ["a"], 0.0
    loader.patch_size, loader.final_patch_size = (6, 20, 16), (6, 20, 16)
    loader._data.cases = Case()  # below the trainer's own ends
    np.random.seed(0)
    seen = set()
    for _ in range(20):
        batch = next(loader)
        for data, target in zip(batch["data"], batch["target"][0], strict=True):
            inner = target[0, :, 0, 0].tolist()
            first, last = inner[0], inner[-1]
            assert inner == [first + i for i in range(4)]
            around = [max(first - 1, 0), *inner, min(last + 1, 8)]
            assert data[0, :, 0, 0].tolist() == around
            seen.add(first)
    assert seen == {0, 1, 2, 3, 4, 5}


def test_shallower_volumes_are_left_to_nnunets_padding(nnunet):
    t = trainer(depth=9)  # the tiny volumes have 7 slices
    data = next(t.get_dataloaders()[1])["data"][0]  # the second is drawn around foreground
    assert data.shape[1] == 11 and (data[:, [0, 1, -2, -1]] == 0).all()
    assert (data[:, 2:9] != 0).any(dim=(0, 2, 3)).all()


@pytest.mark.parametrize("stage", [1, 2])
def test_training_and_validation_read_the_halo_and_segment_without_it(nnunet, stage):
    """Logits change with the slice beyond the end, which the target does not hold."""
    t = trainer()
    t.network.begin_stage(2)
    open_gates(t.network)
    logits = FullSizeLogits(t.network.eval(), stage=stage, heads=None, halo=1)
    t.set_deep_supervision_enabled(False)
    volume = torch.randn(1, 1, 6, 20, 16)
    other = volume.clone()
    other[:, :, 0] += 1
    with torch.no_grad():
        found, changed = logits(volume), logits(other)
    assert found.shape[2:] == (4, 20, 16)
    assert not torch.equal(found[:, :, 0], changed[:, :, 0])


def test_the_loss_of_stage_two_reads_it(nnunet, monkeypatch):
    monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "0")
    t = trainer()
    t.on_train_epoch_start()
    open_gates(t.network)
    batch = next(t.get_dataloaders()[0])
    loss = t._loss(batch["data"], batch["target"])
    batch["data"][:, :, 0] += 3
    assert loss.isfinite() and t._loss(batch["data"], batch["target"]) != loss


def test_targets_lose_both_ends():
    target = torch.arange(6.0)[None, :, None, None].expand(1, 6, 4, 4)
    found = InnerTarget(2)(segmentation=target)["segmentation"]
    assert found[0, :, 0, 0].tolist() == [2, 3]


def test_targets_of_deep_supervision_are_made_of_the_inner_slices(nnunet, monkeypatch):
    """Depth strided at the second head: it holds every second one of the inner slices, not of all."""
    monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "0")
    plan = plans()
    kwargs = plan["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    kwargs["strides"] = [[1, 1, 1], [2, 2, 2], [1, 2, 2]]
    t = DinoMed3DTrainer(plan, "3d_fullres", 0, dataset_json(), torch.device("cpu"))
    t.initialize()
    t.on_train_epoch_start()
    batch = next(t.get_dataloaders()[0])
    whole, half = batch["target"]
    assert whole.shape[2:] == (6, 20, 16) and half.shape[2:] == (3, 10, 8)
    logits = t.network(batch["data"], halo=(1, 1))
    assert [x.shape[2:] for x in logits] == [whole.shape[2:], half.shape[2:]]
    assert t._loss(batch["data"], batch["target"]).isfinite()
