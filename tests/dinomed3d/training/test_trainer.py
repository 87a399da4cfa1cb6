"""DinoMed3DTrainer inside nnU-Net's own loop, on a tiny dataset: both stages, resume, prediction, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from dinomed3d.lifting import WeightsError
from dinomed3d.runtime.errors import UserError
from dinomed3d.training import trainer as trainer_module
from dinomed3d.training.checkpoints.checkpoint import read_checkpoint
from dinomed3d.training.settings.nnunet_plan import NETWORK
from dinomed3d.training.settings.recipe import Recipe
from dinomed3d.training.trainer import DinoMed3DTrainer
from tests.dinomed3d.training.conftest import (
    LABELS,
    REGIONS,
    SETTINGS,
    dataset_json,
    plans,
    prepare,
)
from tests.dinomed3d.training.trainers import Killed, fold_folder, run, trainer


@pytest.fixture
def shortest(nnunet, monkeypatch):
    """An epoch of one step for each stage: for what is no matter of steps."""
    for name in ("STAGE1_EPOCHS", "STAGE2_EPOCHS", "ITERATIONS_PER_EPOCH"):
        monkeypatch.setenv(f"DINOMED3D_{name}", "1")
    return nnunet


def test_both_stages_in_one_run(nnunet):
    t = trainer()
    t.initialize()
    name = "encoder.encoder.vit.blocks.0.mlp.fc1.base.weight"
    weights, start = {}, t.on_epoch_start

    def remember():
        weights[t.current_epoch] = t.network.state_dict()[name].clone()
        start()

    t.on_epoch_start = remember
    t.run_training()
    assert not torch.equal(weights[0], weights[1])  # stage I moves the encoder
    assert torch.equal(weights[2], t.network.state_dict()[name])  # stage II keeps it
    before = Path(t.log_file).read_text(encoding="utf-8").split("Epoch 0 of")[0]
    assert "memory: not tried on cpu" in before  # stage II's step is tried before stage I begins
    frozen = [p for p in t.network.parameters() if not p.requires_grad]
    assert t.stage == 2 and frozen and all(p.grad is None for p in frozen)
    folder = fold_folder(nnunet)
    assert not (folder / "checkpoint_latest.pth").exists()
    final = read_checkpoint(folder / "checkpoint_final.pth")
    assert final["current_epoch"] == 4 and final["dinomed3d"]["stage"] == 2
    best = read_checkpoint(folder / "checkpoint_best.pth")
    assert best["dinomed3d"]["stage"] == 2  # stage I has no network worth predicting with
    assert len(final["logging"]["train_losses"]) == 4
    stored = json.loads((folder.parent / "plans.json").read_text())
    architecture = stored["configurations"]["3d_fullres"]["architecture"]
    assert architecture["network_class_name"] == NETWORK
    assert architecture["arch_kwargs"]["encoder_overrides"]["embed_dim"] == 24
    held = sum(len(group["params"]) for group in final["optimizer_state"]["param_groups"])
    assert held == len(list(t.network.parameters())) - len(frozen)  # no moments of frozen weights
    names = set(final["network_weights"])
    assert len(names) == len(t.network.state_dict())  # and each weight once


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A whole run's recipe, losses and weights."""
    with pytest.MonkeyPatch.context() as patch:
        prepare(tmp_path_factory.mktemp("undisturbed"), patch)
        whole = run(patch)
        weights = {k: v.clone() for k, v in whole.network.state_dict().items()}
        return whole.recipe, whole.logger.get_value("train_losses", step=None), weights


@pytest.mark.parametrize("kill_at", [(0, 1), (1, 1), (2, 0), (3, 1)])
def test_a_killed_run_resumes_to_the_same_trajectory(nnunet, undisturbed, monkeypatch, kill_at):
    recipe, losses, expected = undisturbed
    with pytest.raises(Killed):
        run(monkeypatch, kill_at=kill_at)
    latest = read_checkpoint(fold_folder(nnunet) / "checkpoint_latest.pth")
    assert latest["current_epoch"] == kill_at[0]  # a stop loses no whole epoch
    monkeypatch.setenv("DINOMED3D_WEIGHTS", "no/such/file")  # the checkpoint holds everything
    resumed = run(monkeypatch, continued=True)
    assert resumed.recipe == recipe  # also what it started from: a licence may depend on it
    assert resumed.logger.get_value("train_losses", step=None) == pytest.approx(losses, abs=0)
    for key, value in resumed.network.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_a_run_resumes_from_a_device_without_fused_kernels(nnunet, monkeypatch):
    """MPS has no fused AdamW; its checkpoints hold step counters on another device."""
    with pytest.raises(Killed):
        run(monkeypatch, kill_at=(3, 1))
    path = fold_folder(nnunet) / "checkpoint_latest.pth"
    content = torch.load(path, weights_only=True)
    for group in content["optimizer_state"]["param_groups"]:
        assert group["fused"]
        group["fused"] = False
    torch.save(content, path)
    assert run(monkeypatch, continued=True).current_epoch == 4


def test_resume_and_validation_need_no_environment_variables(nnunet, monkeypatch):
    """The settings of training are in the checkpoint."""
    monkeypatch.setenv("DINOMED3D_SLICES", "5")
    monkeypatch.setenv("DINOMED3D_VOXELS_PER_TOKEN", "8")
    with pytest.raises(Killed):
        run(monkeypatch, kill_at=(3, 0))
    for name in (*SETTINGS, "SLICES", "VOXELS_PER_TOKEN"):
        monkeypatch.delenv(f"DINOMED3D_{name}", raising=False)
    resumed = run(monkeypatch, continued=True)
    assert (resumed.spec.slices, resumed.spec.voxels_per_token) == (5, 8)
    assert resumed.num_epochs == 4 and resumed.num_iterations_per_epoch == 2
    validating = trainer()  # --val: not continued, and a finished fold is there
    validating.load_checkpoint(str(fold_folder(nnunet) / "checkpoint_final.pth"))
    for key, value in validating.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key])


@pytest.mark.parametrize("decoder", ["6e-4", "1e-4", "5e-4"])  # above, below and at the adapters'
def test_rates_can_be_changed_on_resume(nnunet, monkeypatch, decoder):
    with pytest.raises(Killed):
        run(monkeypatch, kill_at=(3, 1))
    monkeypatch.setenv("DINOMED3D_RATE_DECODER", decoder)
    t = trainer(continued=True)
    t.load_checkpoint(str(fold_folder(nnunet) / "checkpoint_latest.pth"))
    peaks = {(group["inside"], group["peak"]) for group in t.optimizer.param_groups}
    assert peaks == {(False, float(decoder)), (True, t.recipe.rate_adapters)}
    for group in t.optimizer.param_groups:
        for parameter in group["params"]:
            assert t.optimizer.state[parameter]["exp_avg"].shape == parameter.shape


def test_stage_one_cannot_grow_once_it_is_over(nnunet, monkeypatch):
    with pytest.raises(Killed):
        run(monkeypatch, kill_at=(3, 0))
    monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "9")
    with pytest.raises(UserError, match="DINOMED3D_STAGE1_EPOCHS"):
        run(monkeypatch, continued=True)


def test_a_shorter_stage_one_ends_where_it_is_and_stage_two_begins_as_always(nnunet, monkeypatch):
    monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "6")
    with pytest.raises(Killed):
        run(monkeypatch, kill_at=(4, 0))
    monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "1")
    t = run(monkeypatch, continued=True)
    assert t.recipe.stage1_epochs == 4 and t.num_epochs == t.current_epoch == 4 + 2
    assert "stage1_epochs 4 instead of 6 (DINOMED3D_STAGE1_EPOCHS)" in Path(t.log_file).read_text()
    first, average = (t.logger.get_value(key, None)[4] for key in ("mean_fg_dice", "ema_fg_dice"))
    assert average == first  # not mixed with the proxy head's
    assert t.recipe.rate_factor(4, 0) == Recipe(
        stage1_epochs=0, stage2_epochs=2, iterations_per_epoch=t.recipe.iterations_per_epoch
    ).rate_factor(0, 0)


def test_stage_one_is_validated_on_as_many_slices_as_it_trains_on(nnunet, monkeypatch):
    t = trainer()
    t.initialize()
    most = []
    made = trainer_module.FullSizeLogits

    def noted(*arguments, **named):
        most.append(named["slices_at_once"])
        return made(*arguments, **named)

    monkeypatch.setattr(trainer_module, "FullSizeLogits", noted)
    training, validation = t.get_dataloaders()
    t.validation_step(next(validation))
    assert most == [len(next(training)["data"])]


def test_best_is_of_stage_two_alone_and_survives_a_resume(nnunet, monkeypatch):
    monkeypatch.setenv("DINOMED3D_STAGE2_EPOCHS", "4")
    dice = iter([0.9, 0.9, 0.3, 0.5, 0.7, 0.6])
    saved = []

    def scripted(t):
        def end(outputs):
            for key, value in (("mean_fg_dice", next(dice)), ("val_losses", 0.0)):
                t.logger.log(key, value, t.current_epoch)
            t.logger.log("dice_per_class_or_region", [0.5, 0.5], t.current_epoch)

        save = t.save_checkpoint
        t.on_validation_epoch_end = end
        t.save_checkpoint = lambda name: (
            saved.append((t.current_epoch, Path(name).stem)),
            save(name),
        )
        return t

    t = scripted(trainer())
    t.run_training()
    best = [epoch for epoch, name in saved if name == "checkpoint_best"]
    assert best == [2, 3, 4, 5]  # averages .3, .32, .358, .382: from stage II's own first epoch on
    content = read_checkpoint(fold_folder(nnunet) / "checkpoint_final.pth")
    assert content["_best_ema"] == pytest.approx(0.3822)
    again = trainer()
    again.load_checkpoint(str(fold_folder(nnunet) / "checkpoint_final.pth"))
    assert again._best_ema == pytest.approx(0.3822)


def test_earlier_checkpoints_are_kept(shortest):
    trainer().run_training()
    folder = fold_folder(shortest)
    first = (folder / "checkpoint_final.pth").read_bytes()
    trainer().run_training()
    second = (folder / "checkpoint_final.pth").read_bytes()
    trainer().run_training()
    assert (folder / "checkpoint_final.pth.previous1").read_bytes() == first
    assert (folder / "checkpoint_final.pth.previous2").read_bytes() == second


def test_a_run_that_cannot_start_leaves_the_old_model_alone(shortest, monkeypatch):
    trainer().run_training()
    folder = fold_folder(shortest)
    monkeypatch.setenv("DINOMED3D_WEIGHTS", "no/such/file")
    with pytest.raises(WeightsError):
        trainer().run_training()
    monkeypatch.setenv("DINOMED3D_WEIGHTS", "none")
    dry = trainer()
    dry.disable_checkpointing = True
    dry.run_training()
    assert sorted(p.name for p in folder.glob("checkpoint*")) == [
        "checkpoint_best.pth",
        "checkpoint_final.pth",
    ]


def test_leftovers_of_a_kill_while_writing_are_removed(shortest):
    folder = fold_folder(shortest)
    folder.mkdir(parents=True)
    (folder / ".00000000-1-00000000.part.checkpoint_latest.pth").write_bytes(b"half")
    trainer().run_training()
    assert not list(folder.glob(".checkpoint*"))


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
@pytest.mark.parametrize("labels", [LABELS, REGIONS, LABELS | {"ignore": 3}])
def test_all_kinds_of_labels_and_prediction_without_pretrained_weights(
    nnunet, monkeypatch, configuration, labels
):
    t = trainer(configuration, labels=labels)
    t.run_training()
    monkeypatch.setenv("DINOMED3D_WEIGHTS", "no/such/file")
    for name in ("ENCODER_OVERRIDES", "STAGE1_EPOCHS"):
        monkeypatch.delenv(f"DINOMED3D_{name}")  # not set where a model predicts
    predictor = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
    folder = fold_folder(nnunet, configuration).parent
    predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
    image = torch.randn(1, 7, 22, 18)
    logits = predictor.predict_sliding_window_return_logits(image)
    heads = 2 if labels == REGIONS else 3
    assert logits.shape == (heads, 7, 22, 18) and torch.isfinite(logits).all()
    t.set_deep_supervision_enabled(False)
    t.network.eval()
    patch = (
        image[None, :, :6, :20, :16] if configuration == "3d_fullres" else image[:, :1, :20, :16]
    )
    with torch.no_grad():
        assert torch.equal(predictor.network(patch), t.network(patch))


@pytest.mark.slow
def test_it_learns(nnunet, monkeypatch):
    """A bright box on noise: after some steps the loss is far below where it began."""
    for name, value in {"STAGE1_EPOCHS": 1, "STAGE2_EPOCHS": 3, "ITERATIONS_PER_EPOCH": 25}.items():
        monkeypatch.setenv(f"DINOMED3D_{name}", str(value))
    t = trainer()
    t.run_training()
    losses = t.logger.get_value("train_losses", step=None)
    assert losses[3] < losses[1] - 0.15


def test_fold_all(shortest):
    trainer(fold="all").run_training()
    assert (fold_folder(shortest, fold="all") / "checkpoint_final.pth").is_file()


@pytest.mark.parametrize(
    ("variable", "value", "names"),
    [
        ("DINOMED3D_WEIGHTS", "no/such/file.pth", "no/such/file.pth"),
        ("DINOMED3D_VOXELS_PER_TOKEN", "32", "DINOMED3D_VOXELS_PER_TOKEN"),
        ("DINOMED3D_ENCODER_OVERRIDES", '{"embed_dim": 7}', "ENCODER_OVERRIDES: .*embed_dim"),
        ("DINOMED3D_STAGE2_EPOCHS", "soon", "DINOMED3D_STAGE2_EPOCHS"),
        ("nnUNet_results", None, "nnUNet_results"),
    ],
)
@pytest.mark.parametrize("continued", [False, True])  # with nothing to continue
def test_bad_settings_are_refused_before_anything_is_written(
    nnunet, monkeypatch, variable, value, names, continued
):
    monkeypatch.delenv(variable, raising=False)
    if value is not None:
        monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=names):
        trainer(continued=continued)
    assert not list((nnunet / "results").iterdir())


def test_plans_of_another_version_are_refused(nnunet):
    def planned(**architecture):
        plan = plans()
        plan["configurations"]["3d_fullres"]["architecture"] |= architecture
        return DinoMed3DTrainer(plan, "3d_fullres", 0, dataset_json(), torch.device("cpu"))

    with pytest.raises(UserError, match="dinomed3d.networks.Old"):
        planned(network_class_name="dinomed3d.networks.Old", arch_kwargs={})
    with pytest.raises(UserError, match="wheels"):
        planned(network_class_name=NETWORK, arch_kwargs={"wheels": 4})
    with pytest.raises(UserError, match="'token_width'"):
        planned(network_class_name=NETWORK, arch_kwargs={"token_width": "4"})


@pytest.mark.parametrize("unfinished", [False, True])
def test_folds_with_another_network_are_refused(nnunet, monkeypatch, unfinished):
    if unfinished:
        with pytest.raises(Killed):
            run(monkeypatch, kill_at=(1, 0))
    else:
        trainer().run_training()
    monkeypatch.setenv("DINOMED3D_SLICES", "5")
    with pytest.raises(UserError, match="fold_0 .*slices"):
        trainer(fold=1)


def test_resuming_with_another_network_is_refused(nnunet, monkeypatch):
    with pytest.raises(Killed):
        run(monkeypatch, kill_at=(1, 0))
    monkeypatch.setenv("DINOMED3D_SLICES", "5")
    with pytest.raises(UserError, match="slices"):
        run(monkeypatch, continued=True)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_loss_that_is_not_finite_stops_training(nnunet, monkeypatch, stage):
    """No step is made from there on, and --c continues from the epoch before."""
    monkeypatch.setenv("DINOMED3D_ITERATIONS_PER_EPOCH", "4")
    t = trainer()
    step, before, bad = t.train_step, {}, (2 * stage - 1, 2)  # an epoch of that stage

    def stepping(batch):
        if (t.current_epoch, t.iteration) == bad:
            before.update({k: v.clone() for k, v in t.network.state_dict().items()})
            batch["data"][0, :, 0, 0] = float("nan")
        return step(batch)

    t.train_step = stepping
    ended: list[object] = []
    monkeypatch.setattr("dinomed3d.training.resumable_trainer.finish", ended.append)
    with pytest.raises(FloatingPointError, match=f"epoch {bad[0]}, step 2"):
        t.run_training()
    assert ended == [t.dataloader_train, t.dataloader_val]  # or their threads complain at the exit
    assert t.iteration == 4  # it is noticed at the end of the epoch
    *_, said = Path(t.log_file).read_text(encoding="utf-8").strip().splitlines()
    assert f"stopped in epoch {bad[0]} of " in said and "--c" in said
    assert all(torch.equal(v, before[k]) for k, v in t.network.state_dict().items())
    latest = read_checkpoint(fold_folder(nnunet) / "checkpoint_latest.pth")
    assert latest["current_epoch"] == bad[0]
    resumed = run(monkeypatch, continued=True)
    assert np.isfinite(resumed.logger.get_value("train_losses", step=None)).all()
    assert len(resumed.logger.get_value("train_losses", step=None)) == 4


def test_without_deep_supervision(nnunet):
    t = trainer()
    t.enable_deep_supervision = False
    t.run_training()
    assert np.isfinite(t.logger.get_value("val_losses", step=None)).all()


def test_losses_of_both_stages(nnunet):
    """Stage I's Dice is over the whole batch, stage II's as the plan says; a head counts half of the finer one."""
    t = trainer()
    t.initialize()
    assert t.proxy_loss.dc.batch_dice and not t.configuration_manager.batch_dice
    assert not t.loss.loss.dc.batch_dice
    np.testing.assert_allclose(t.loss.weight_factors, [2 / 3, 1 / 3])


def test_gradients_are_clipped_as_the_recipe_says(nnunet):
    t = trainer()
    t.initialize()
    assert t.optimizer_step.clip == Recipe().clip
    t.recipe = replace(t.recipe, clip=0.125)
    for t.stage in (1, 2):
        t.configure_optimizers()
        assert t.optimizer_step.clip == 0.125


def test_rates_and_groups_of_both_stages(nnunet):
    t = trainer()
    t.initialize()
    names = {parameter: name for name, parameter in t.network.named_parameters()}
    for group in t.optimizer.param_groups:
        inside = group["peak"] == t.recipe.rate_encoder
        assert inside or group["peak"] == t.recipe.rate_proxy
        for name in (names[parameter] for parameter in group["params"]):
            assert name.startswith("encoder.") == inside
            assert group["weight_decay"] == 0 or not name.endswith(("cls_token", "reg_token"))
    learning = {names[p] for g in t.optimizer.param_groups for p in g["params"]}
    assert any(name.endswith("reg_token") for name in learning)
    t.stage = 2
    optimizer, _ = t.configure_optimizers()
    assert {g["peak"] for g in optimizer.param_groups} == {
        t.recipe.rate_adapters,
        t.recipe.rate_decoder,
    }
    assert {g["weight_decay"] for g in optimizer.param_groups if g["params"][0].ndim < 2} == {0.0}
