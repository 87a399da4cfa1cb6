"""Training that starts from a trained model: weights, labels, channels, network, recipe, resume, refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.run.run_training import maybe_load_checkpoint

from dinomed3d.lifting import WeightsError
from dinomed3d.networks import NetworkSpec, build_network
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.checkpoints.checkpoint import read_checkpoint
from dinomed3d.training.settings.nnunet_plan import write_spec
from dinomed3d.training.start.network_start import LOADED
from dinomed3d.training.start.start_from_model import (
    find_model,
    load_model,
    read_model,
    spec_of_model,
)
from dinomed3d.training.trainer import DinoMed3DTrainer
from tests.dinomed3d.training.conftest import LABELS, REGIONS, dataset_json, plans
from tests.dinomed3d.training.trainers import Killed, fold_folder

MORE = LABELS | {"c": 3}
OTHER = {"background": 0, "b": 1, "a": 2}
TWO = {"0": "FLAIR", "1": "MRI"}


@pytest.fixture
def model(nnunet: Path, no_hub: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A trained model of ours, and after it neither settings nor pretrained weights nor a network."""
    monkeypatch.setenv("DINOMED3D_VOXELS_PER_TOKEN", "8")  # not what the patch would get by itself
    t = new_trainer()
    t.initialize()
    with torch.no_grad():
        for tensor in t.network.parameters():
            tensor.add_(torch.randn_like(tensor))  # also what is zero at first
    t.current_epoch, t.stage = 3, 2
    t.save_checkpoint(str(tmp_path / "model.pth"))
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    content["dinomed3d"]["recipe"]["weights"] = "hub"
    torch.save(content, tmp_path / "model.pth")
    for path in sorted((nnunet / "results").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()

    for name in ("WEIGHTS", "ENCODER_OVERRIDES", "VOXELS_PER_TOKEN", "STAGE1_EPOCHS"):
        monkeypatch.delenv(f"DINOMED3D_{name}")
    return tmp_path / "model.pth"


def new_trainer(
    labels: dict = LABELS,
    channels: dict | None = None,
    spec: NetworkSpec | None = None,
    *,
    continued=False,
) -> DinoMed3DTrainer:
    """A trainer for other labels and channels, for nnU-Net's own plan or one that names a network."""
    plan, dataset = plans() | {"continue_training": continued}, dataset_json(labels)
    dataset["channel_names"] = channels or dataset["channel_names"]
    if spec is not None:
        write_spec(plan, "3d_fullres", spec)
    return DinoMed3DTrainer(plan, "3d_fullres", 0, dataset, torch.device("cpu"))


def log_of(t: DinoMed3DTrainer) -> str:
    return Path(t.log_file).read_text()


def differing(found: dict, stored: dict) -> set[str]:
    assert found.keys() == stored.keys()
    return {
        k
        for k in found
        if found[k].shape != stored[k].shape or not torch.equal(found[k], stored[k])
    }


def test_the_whole_network_starts_from_a_model(model, monkeypatch):
    monkeypatch.setenv("DINOMED3D_START_FROM", str(model))
    t = new_trainer()
    t.initialize()
    assert t.spec == read_model(str(model)).spec and t.spec.voxels_per_token == 8
    assert differing(t.network.state_dict(), read_checkpoint(model)["network_weights"]) == set()


@pytest.mark.parametrize("labels", [MORE, REGIONS, OTHER])
def test_heads_of_other_labels_start_anew(model, monkeypatch, labels):
    monkeypatch.setenv("DINOMED3D_START_FROM", str(model))
    t = new_trainer(labels)
    t.initialize()
    state = t.network.state_dict()
    differ = differing(state, read_checkpoint(model)["network_weights"])
    assert differ == {key for key in state if "seg_layers." in key}


@pytest.mark.parametrize("cascade", [0, 2])
def test_input_layers_of_other_channels_are_adapted(model, monkeypatch, cascade):
    """One channel before, two now: the old one by name, the new one like it, each at half."""
    monkeypatch.setenv("DINOMED3D_START_FROM", str(model))
    if cascade:
        monkeypatch.setattr(
            "dinomed3d.training.trainer.with_cascade_channels",
            lambda spec, *_: replace(spec, cascade_channels=cascade),
        )
        monkeypatch.setattr(
            "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.determine_num_input_channels",
            lambda *_: 2 + cascade,
        )
    t = new_trainer(channels=TWO)
    t.initialize()
    state, stored = t.network.state_dict(), read_checkpoint(model)["network_weights"]
    kernel = stored["encoder.encoder.vit.patch_embed.proj.weight"]
    twice = kernel.repeat_interleave(2, dim=1) / 2
    assert torch.equal(state["encoder.encoder.vit.patch_embed.proj.weight"], twice)
    convolutions = {k for k in differing(state, stored) if "patch_embed" not in k}
    assert convolutions and all(state[k].shape[1] == 2 + cascade for k in convolutions)
    for key in convolutions:
        assert torch.equal(state[key][:, :2], stored[key].repeat(1, 2, 1, 1, 1) / 2)
        assert not state[key][:, 2:].any()


@pytest.mark.parametrize(
    ("labels", "cascade", "kept"),
    [(LABELS, 2, True), (OTHER, 2, False), (LABELS, 3, False), (LABELS, 0, False)],
)
def test_the_cascade_keeps_its_kernels_only_for_the_same_labels(model, labels, cascade, kept):
    """Of the previous configuration's labels the model knew two."""
    spec = replace(read_model(str(model)).spec, cascade_channels=2)
    state, wider = (build_network(n, 3, **spec.to_arch_kwargs()).state_dict() for n in (3, 4))
    keys = {k for k in state if state[k].shape != wider[k].shape and "patch_embed" not in k}
    assert keys
    knowing = replace(read_model(str(model)), spec=spec, weights=state)
    here = replace(spec, cascade_channels=cascade).to_arch_kwargs()
    network = build_network(1 + cascade, 3, **here)
    load_model(network, knowing, dataset_json(labels))
    for key in keys:
        found = network.state_dict()[key]
        assert found.shape[1] == 1 + cascade
        assert torch.equal(found[:, :1], state[key][:, :1])
        assert torch.equal(found[:, 1:], state[key][:, 1:] if kept else 0 * found[:, 1:])


def test_heads_of_regions_in_another_order_start_anew(model):
    dataset = dataset_json(REGIONS)
    known = read_model(str(model))
    spec = known.spec.to_arch_kwargs()
    known = replace(known, weights=build_network(1, 2, **spec).state_dict(), dataset=dataset)
    for order, kept in (([1, 2], True), ([2, 1], False)):
        network = build_network(1, 2, **spec)
        load_model(network, known, dataset | {"regions_class_order": order})
        differ = differing(network.state_dict(), known.weights)
        assert bool(differ) != kept and all("seg_layers." in key for key in differ)


def test_stage_one_is_left_out_unless_asked_for(model, monkeypatch):
    monkeypatch.setenv("DINOMED3D_START_FROM", str(model))
    monkeypatch.setenv("DINOMED3D_WEIGHTS", "none")
    t = new_trainer()
    assert (t.recipe.stage1_epochs, t.stage, t.num_epochs) == (0, 2, 2)
    assert t.recipe.rate_encoder == 5e-5 and t.recipe.weights == "hub"
    monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "1")
    t = new_trainer()
    assert (t.recipe.stage1_epochs, t.stage, t.num_epochs) == (1, 1, 3)


def test_training_from_a_model_says_so_and_resumes(model, monkeypatch):
    monkeypatch.setenv("DINOMED3D_START_FROM", str(model))
    t = new_trainer(OTHER)
    step = t.train_step

    def stepping(batch):
        if t.current_epoch == 1:
            raise Killed
        return step(batch)

    t.train_step = stepping
    with pytest.raises(Killed):
        t.run_training()
    lines = [
        line for line in log_of(t).splitlines() if str(model) in line and "starts from" in line
    ]
    assert len(lines) == 1
    assert all(words in lines[0] for words in ("heads are new", "4 epochs", "stage I is left out"))
    assert "RANDOM" not in log_of(t)
    model.unlink()  # neither the model nor a setting is needed any more
    monkeypatch.delenv("DINOMED3D_START_FROM")
    again = new_trainer(OTHER, continued=True)
    again.load_checkpoint(str(Path(again.output_folder) / "checkpoint_latest.pth"))
    assert again.recipe == t.recipe and again.recipe.start_from == str(model)
    again.run_training()
    final = read_checkpoint(Path(again.output_folder) / "checkpoint_final.pth")
    assert final["current_epoch"] == 2 and final["dinomed3d"]["stage"] == 2


def test_stock_pretrained_weights(model, monkeypatch):
    """nnU-Net's -pretrained_weights: what its command does between construction and training."""
    spec = read_model(str(model)).spec
    t = new_trainer(MORE, spec=spec)
    maybe_load_checkpoint(t, False, False, str(model))
    t.on_train_start()
    assert (t.recipe.stage1_epochs, t.stage, t.num_epochs) == (0, 2, 2)
    assert t.recipe.rate_encoder == 5e-5 and t.recipe.weights == LOADED
    stored = read_checkpoint(model)["network_weights"]
    heads = {key for key in stored if "seg_layers." in key}
    assert differing(t.network.state_dict(), stored) == heads
    assert log_of(t).count("network starts from") == 1 and "RANDOM" not in log_of(t)
    learning = {p for group in t.optimizer.param_groups for p in group["params"]}
    assert learning == {p for p in t.network.parameters() if p.requires_grad}
    latest = read_checkpoint(Path(t.output_folder) / "checkpoint_latest.pth")
    assert latest["dinomed3d"]["stage"] == 2
    again = new_trainer(MORE, continued=True)
    again.load_checkpoint(str(Path(t.output_folder) / "checkpoint_latest.pth"))
    assert again.recipe == t.recipe


def test_stock_pretrained_weights_without_the_foundation_rates(model, monkeypatch):
    """DINOMED3D_WEIGHTS=none is no random start here; stage I is had for the asking."""
    monkeypatch.setenv("DINOMED3D_WEIGHTS", "none")
    monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "1")
    t = new_trainer(spec=read_model(str(model)).spec)
    assert t.recipe.rate_encoder == 5e-4
    t.initialize()
    load_pretrained_weights(t.network, str(model))
    t.on_train_start()
    assert (t.recipe.rate_encoder, t.recipe.stage1_epochs, t.stage) == (5e-5, 1, 1)
    assert "RANDOM" not in log_of(t)


def test_missing_weights_are_refused_when_training_begins(model):
    t = new_trainer(spec=read_model(str(model)).spec)
    t.initialize()
    with pytest.raises(WeightsError, match="DINOMED3D_WEIGHTS"):
        t.network(torch.zeros(1, 1, 2, 16, 16))
    with pytest.raises(WeightsError, match="DINOMED3D_WEIGHTS"):
        t.run_training()
    assert t.dataloader_train is None  # nothing has been started
    assert not list(Path(t.output_folder).glob("checkpoint*"))


def test_two_starts_are_refused(model, monkeypatch):
    monkeypatch.setenv("DINOMED3D_START_FROM", str(model))
    t = new_trainer()
    t.initialize()
    load_pretrained_weights(t.network, str(model))
    with pytest.raises(UserError, match="DINOMED3D_START_FROM.*-pretrained_weights"):
        t.run_training()


def test_a_plan_with_another_network_is_refused(model, monkeypatch):
    spec = read_model(str(model)).spec
    planned = replace(spec, slices=5)
    with pytest.raises(UserError, match="slices: 3 there, 5 here"):
        spec_of_model(read_model(str(model)), planned, is_stock=False, environ={})
    same = replace(spec, cascade_channels=2)  # the cascade is the plan's affair
    assert spec_of_model(read_model(str(model)), same, is_stock=False, environ={}) == same
    assert spec_of_model(read_model(str(model)), planned, is_stock=True, environ={}) == spec
    with pytest.raises(UserError, match="slices: 3 there, 5 here"):
        spec_of_model(
            read_model(str(model)), planned, is_stock=True, environ={"DINOMED3D_SLICES": "5"}
        )
    monkeypatch.setenv("DINOMED3D_START_FROM", str(model))
    with pytest.raises(UserError, match="slices"):
        new_trainer(spec=planned)


def cut(content: dict) -> None:
    del content["network_weights"][
        next(k for k in content["network_weights"] if "seg_layers." in k)
    ]


def blind(content: dict) -> None:
    del content["network_weights"]["encoder.encoder.vit.patch_embed.proj.weight"]


def reshape(content: dict) -> None:
    content["network_weights"]["encoder.encoder.vit.norm.weight"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (cut, "model.pth.*seg_layers"),
        (blind, "model.pth.*patch_embed"),
        (reshape, "model.pth.*vit.norm.weight"),
        (lambda content: content.pop("init_args"), "model.pth.*init_args"),
        (lambda content: content["dinomed3d"]["spec"].update(wheels=4), "wheels"),
        (lambda content: content.pop("dinomed3d"), "model.pth.*DinoMed3DTrainer"),
    ],
)
def test_models_of_another_version_are_refused(model, monkeypatch, damage: Callable, names):
    content = torch.load(model, weights_only=True)
    damage(content)
    torch.save(content, model)
    monkeypatch.setenv("DINOMED3D_START_FROM", str(model))
    with pytest.raises(UserError, match=names):
        new_trainer().initialize()


def test_a_model_is_found_in_its_folder(tmp_path):
    (tmp_path / "fold_1").mkdir()
    for folder in (tmp_path, tmp_path / "fold_1"):
        with pytest.raises(UserError, match="DINOMED3D_START_FROM.*found none"):
            find_model(str(folder))
    file = tmp_path / "fold_1" / "checkpoint_final.pth"
    file.touch()
    assert (
        find_model(str(tmp_path)) == find_model(str(file.parent)) == find_model(str(file)) == file
    )
    (tmp_path / "fold_3").mkdir()
    (tmp_path / "fold_3" / "checkpoint_final.pth").touch()
    with pytest.raises(UserError, match="fold_1.*fold_3"):
        find_model(str(tmp_path))
    with pytest.raises(UserError, match="DINOMED3D_START_FROM.*nowhere"):
        find_model(str(tmp_path / "nowhere"))


def test_a_finished_fold_validates_without_the_model_that_it_started_from(
    model, nnunet, monkeypatch
):
    monkeypatch.setenv("DINOMED3D_START_FROM", str(model))
    t = new_trainer()
    t.initialize()
    folder = fold_folder(nnunet)
    t.save_checkpoint(str(folder / "checkpoint_final.pth"))
    model.unlink()
    validating = new_trainer()
    validating.load_checkpoint(str(folder / "checkpoint_final.pth"))
    assert differing(validating.network.state_dict(), t.network.state_dict()) == set()
    with pytest.raises(UserError, match="DINOMED3D_START_FROM"):
        new_trainer().run_training()
    assert (folder / "checkpoint_final.pth").is_file()
