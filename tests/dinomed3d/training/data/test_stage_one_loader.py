"""Stage I's batches: slices of many cases with their true neighbours, each with its own target."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from dinomed3d.lifting import stack_slices
from dinomed3d.training.data.replicated_ends import CasesWithReplicatedEnds, ReplicatedEnds
from dinomed3d.training.data.stage_one_loader import (
    MIN_DEPTH,
    SlicesAsChannels,
    StageOneLoader,
    finish,
    loader_of,
)
from dinomed3d.training.trainer import DinoMed3DTrainer
from tests.dinomed3d.training.conftest import CASES, LABELS, REGIONS, dataset_json, plans

DEPTH, HEIGHT, WIDTH = 7, 6, 5


class NumberedCases:
    """Cases whose voxels hold 1000 * case + 10 * channel + slice, and whose labels hold the slice."""

    def __init__(self, count: int, channels: int = 2, foreground: dict | None = None) -> None:
        self.identifiers = [f"case_{i}" for i in range(count)]
        self.channels = channels
        self.foreground = foreground or {}

    def load_case(self, identifier):
        case = 1000 * int(identifier.removeprefix("case_"))
        z = np.arange(DEPTH, dtype=np.float32)[:, None, None]
        volume = np.broadcast_to(z, (DEPTH, HEIGHT, WIDTH))
        data = np.stack([case + 10 * c + volume for c in range(self.channels)])
        return data, volume[None].astype(np.int16), None, {"class_locations": self.foreground}


def batch_of(cases, *, slices=3, depth=5, count=16, share=0.0):
    """A batch without augmentation, from patches of `depth` slices."""
    patch = (depth, HEIGHT, WIDTH)
    loader = StageOneLoader(
        CasesWithReplicatedEnds(cases, depth // 2),
        count,
        patch,
        patch,
        SimpleNamespace(all_labels=[0, 1], has_ignore_label=False),
        oversample_foreground_percent=share,
        transforms=SlicesAsChannels(slices),
    )
    return next(loader)


@pytest.mark.parametrize(("slices", "depth"), [(1, 5), (3, 3), (3, 5), (5, 5)])
def test_channels_are_the_slices_around_the_one_that_is_labelled(slices, depth):
    np.random.seed(0)
    batch = batch_of(NumberedCases(4), slices=slices, depth=depth, count=64)
    centres = batch["target"][:, 0, 0, 0]
    assert batch["data"].shape == (64, slices * 2, HEIGHT, WIDTH)
    assert set(centres.tolist()) == set(range(DEPTH))  # the end slices, too
    for stack, centre, key in zip(batch["data"], centres.tolist(), batch["keys"], strict=True):
        volume = torch.from_numpy(NumberedCases(4).load_case(key)[0])[None]
        assert torch.equal(stack, stack_slices(volume, slices=slices)[centre])


def test_no_case_comes_again_before_all_have_come():
    np.random.seed(0)
    assert len(set(batch_of(NumberedCases(40), count=32)["keys"])) == 32
    counts = Counter(batch_of(NumberedCases(5), count=12)["keys"])
    assert sorted(counts.values()) == [2, 2, 2, 3, 3]


def test_the_wanted_share_shows_foreground():
    """Class 1 is in the last slice alone, which is reached only where end slices are repeated."""
    np.random.seed(0)
    places = {1: np.array([[0, DEPTH - 1, 2, 2]]), 2: np.zeros((0, 4), int)}
    centres = batch_of(NumberedCases(4, foreground=places), count=60, share=0.5)["target"][
        :, 0, 0, 0
    ]
    assert (centres[30:] == DEPTH - 1).all() and len(set(centres[:30].tolist())) == DEPTH


def test_ends_are_repeated_where_they_are_read():
    voxels = np.arange(2 * 4 * 3 * 2).reshape(2, 4, 3, 2)
    expected = np.pad(voxels, [(0, 0), (2, 2), (0, 0), (0, 0)], mode="edge")
    longer = ReplicatedEnds(voxels, 2)
    assert longer.shape == expected.shape
    for first in range(8):
        for last in range(first + 1, 9):
            box = (slice(None), slice(first, last), slice(1, 3), slice(0, 1))
            assert np.array_equal(longer[box], expected[box])
    assert np.array_equal(
        ReplicatedEnds(voxels[0], 2)[slice(0, 8), slice(None), slice(None)], expected[0]
    )


def trainer(configuration="3d_fullres", labels=LABELS) -> DinoMed3DTrainer:
    plan = plans()
    t = DinoMed3DTrainer(plan, configuration, 0, dataset_json(labels), torch.device("cpu"))
    t.initialize()
    return t


def test_volumes_as_deep_as_a_patch_have_repeated_ends_and_shallower_ones_have_not():
    for least, depth in ((DEPTH, DEPTH + 2), (DEPTH + 1, DEPTH)):
        cases = CasesWithReplicatedEnds(NumberedCases(1), 1, min_depth=least)
        assert cases.load_case("case_0")[0].shape[-3] == depth


def test_slices_are_turned_in_plane_in_patches_that_reach_every_slice(nnunet, monkeypatch):
    real, asked = nnUNetTrainer.get_training_transforms, []
    monkeypatch.setattr(
        nnUNetTrainer,
        "get_training_transforms",
        staticmethod(lambda *given, **more: asked.append(given) or real(*given, **more)),
    )
    batches, _ = trainer().get_dataloaders()  # slices are twice as far apart as pixels
    patch, _, _, _, in_plane, *_ = asked[-1]
    assert patch == (MIN_DEPTH, 20, 16) and in_plane
    assert loader_of(batches)._data.count == MIN_DEPTH // 2  # more than the embedding reads


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
@pytest.mark.parametrize("labels", [LABELS, REGIONS, LABELS | {"ignore": 3}])
def test_batches_of_a_trainer(nnunet, monkeypatch, configuration, labels):
    monkeypatch.setenv("DINOMED3D_STAGE1_SLICES", "9")
    t = trainer(configuration, labels)
    batches, validation = t.get_dataloaders()
    batch = next(batches)
    channels, targets = (3 if configuration == "3d_fullres" else 1), (2 if labels == REGIONS else 1)
    assert batch["data"].shape == (9, channels, 20, 16)
    assert batch["target"].shape == (9, targets, 20, 16)
    assert set(batch["keys"]) == set(CASES[:4])  # all of the training cases, none of validation's
    assert batch["target"][-6:].flatten(1).any(dim=1).all()  # two thirds of nine
    patches = next(validation)["data"]
    planned = t.configuration_manager.patch_size
    assert list(patches.shape[2:]) == (planned if len(planned) == 2 else [8, 20, 16])


def test_single_slices_are_their_own_neighbours(nnunet, monkeypatch):
    monkeypatch.setenv("DINOMED3D_SLICES", "3")
    data = next(trainer("2d").get_dataloaders()[0])["data"]
    assert data.shape[1] == 3 and torch.equal(data[:, 0], data[:, 1])
    assert torch.equal(data[:, 2], data[:, 1])


def test_slices_and_their_targets_are_augmented_alike(nnunet, monkeypatch):
    """The box of the tiny cases is bright: where the target has it, so have the slice and its neighbours."""
    np.random.seed(0)
    monkeypatch.setenv("DINOMED3D_STAGE1_SLICES", "48")
    batch = next(trainer().get_dataloaders()[0])
    inside = batch["target"][:, 0] > 0
    means = [[s[where].mean() for s in batch["data"].unbind(1)] for where in (inside, ~inside)]
    assert all(b > d + 0.5 for b, d in zip(*means, strict=True))


def test_stage_two_draws_patches_and_the_workers_of_stage_one_end(nnunet, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "1")
    before = set(multiprocessing.active_children())
    t = trainer()
    t.dataloader_train, t.dataloader_val = t.get_dataloaders()
    try:
        first = t.dataloader_train  # held, so that workers do not end because it is forgotten
        assert next(first)["data"].ndim == 4
        own = set(multiprocessing.active_children()) - before
        assert len(own) == 2  # stage I's and validation's; nnU-Net's patches wait without one
        finish(t.dataloader_val)
        t.current_epoch = 1
        t.on_train_epoch_start()
        assert set(multiprocessing.active_children()) == before
        assert next(t.dataloader_train)["data"].shape == (2, 1, 8, 20, 16)
    finally:
        finish(t.dataloader_train)
        finish(t.dataloader_val)
