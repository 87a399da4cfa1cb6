"""DinoMed3DTrainer inside nnU-Net's own loop, on a tiny dataset: both stages, resume, prediction, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from dinomed3d.errors import UserError
from dinomed3d.lifting import WeightsError
from dinomed3d.training.checkpoint import read_checkpoint
from dinomed3d.training.plan import NETWORK
from dinomed3d.training.trainer import DinoMed3DTrainer

from .conftest import LABELS, REGIONS, dataset_json, plans


def trainer(
    configuration="3d_fullres", fold=0, labels=LABELS, continued=False, cls=DinoMed3DTrainer
):
    plan = plans() | {"continue_training": continued}
    return cls(plan, configuration, fold, dataset_json(labels), torch.device("cpu"))


def fold_folder(nnunet: Path, configuration="3d_fullres", fold=0) -> Path:
    name = f"DinoMed3DTrainer__nnUNetPlans__{configuration}"
    return nnunet / "results" / "Dataset901_Tiny" / name / f"fold_{fold}"


class Killed(Exception):
    """Stands for a kill in the middle of an epoch."""


def run(
    monkeypatch, *, kill_at: tuple[int, int] | None = None, continued=False
) -> DinoMed3DTrainer:
    """Train from one seed; perhaps die at (epoch, iteration); perhaps continue an earlier run."""
    torch.manual_seed(5)
    np.random.seed(5)
    t = trainer(continued=continued)
    if continued:
        t.load_checkpoint(str(Path(t.output_folder) / "checkpoint_latest.pth"))
    step = t.train_step

    def stepping(batch):
        if kill_at == (t.current_epoch, t.iteration):
            raise Killed
        return step(batch)

    monkeypatch.setattr(t, "train_step", stepping)
    t.run_training()
    return t


def test_both_stages_in_one_run(nnunet):
    t = trainer()
    t.run_training()
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
    frozen = [n for n, p in t.network.named_parameters() if not p.requires_grad]
    held = sum(len(group["params"]) for group in final["optimizer_state"]["param_groups"])
    assert held == len(list(t.network.parameters())) - len(frozen)  # no moments of frozen weights
    names = set(final["network_weights"])
    assert len(names) == len(t.network.state_dict())  # and each weight once


def test_stage_one_moves_the_encoder_and_stage_two_keeps_it(nnunet):
    t = trainer()
    t.initialize()
    name = "encoder.encoder.vit.blocks.0.mlp.fc1.base.weight"
    weights = {0: t.network.state_dict()[name].clone()}
    begin = t.on_epoch_start

    def remember():
        weights[t.current_epoch] = t.network.state_dict()[name].clone()
        begin()

    t.on_epoch_start = remember
    t.run_training()
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[2], t.network.state_dict()[name])


@pytest.mark.parametrize("kill_at", [(0, 1), (1, 1), (2, 0), (3, 1)])
def test_a_killed_run_resumes_to_the_same_trajectory(nnunet, monkeypatch, kill_at):
    whole = run(monkeypatch)
    expected = {k: v.clone() for k, v in whole.network.state_dict().items()}
    losses = whole.logger.get_value("train_losses", step=None)
    with pytest.raises(Killed):
        run(monkeypatch, kill_at=kill_at)
    monkeypatch.setenv("DINOMED3D_WEIGHTS", "no/such/file")  # the checkpoint holds everything
    resumed = run(monkeypatch, continued=True)
    assert resumed.logger.get_value("train_losses", step=None) == pytest.approx(losses, abs=0)
    for key, value in resumed.network.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_earlier_checkpoints_are_kept(nnunet):
    trainer().run_training()
    folder = fold_folder(nnunet)
    first = (folder / "checkpoint_final.pth").read_bytes()
    trainer().run_training()
    assert (folder / "checkpoint_final.pth.previous").read_bytes() == first


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
@pytest.mark.parametrize("labels", [LABELS, REGIONS, LABELS | {"ignore": 3}])
def test_all_kinds_of_labels_and_prediction_without_foundation(
    nnunet, monkeypatch, configuration, labels
):
    t = trainer(configuration, labels=labels)
    t.run_training()
    monkeypatch.setenv("DINOMED3D_WEIGHTS", "no/such/file")
    for name in ("ENCODER_OVERRIDES", "STAGE1_EPOCHS"):
        monkeypatch.delenv(f"DINOMED3D_{name}")  # a predicting machine knows nothing of these
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


def test_it_learns(nnunet, monkeypatch):
    """A bright box on noise: after some steps the loss is far below where it began."""
    for name, value in {"STAGE1_EPOCHS": 1, "STAGE2_EPOCHS": 3, "ITERATIONS_PER_EPOCH": 25}.items():
        monkeypatch.setenv(f"DINOMED3D_{name}", str(value))
    t = trainer()
    t.run_training()
    losses = t.logger.get_value("train_losses", step=None)
    assert losses[3] < losses[1] - 0.15


def test_fold_all(nnunet):
    trainer(fold="all").run_training()
    assert (fold_folder(nnunet, fold="all") / "checkpoint_final.pth").is_file()


def test_no_weights_is_one_clear_message_and_nothing_is_written(nnunet, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    monkeypatch.delenv("DINOMED3D_WEIGHTS")
    monkeypatch.delenv("DINOMED3D_ENCODER_OVERRIDES")
    with pytest.raises(WeightsError, match="DINOMED3D_WEIGHTS .* file or directory"):
        trainer()
    assert not list((nnunet / "results").iterdir())


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WEIGHTS", "no/such/file.pth", "no such file or directory"),
        ("SLICES", "2", "must be odd"),
        ("ENCODER", "resnet50", "'encoder' must be one of"),
        ("VOXELS_PER_TOKEN", "5", "power of two"),
        ("STAGE2_EPOCHS", "soon", "must be a whole number"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    nnunet, monkeypatch, variable, value, message
):
    monkeypatch.setenv(f"DINOMED3D_{variable}", value)
    with pytest.raises(ValueError, match=message):
        trainer()
    assert not list((nnunet / "results").iterdir())


def test_folds_with_another_network_are_refused(nnunet, monkeypatch):
    trainer().run_training()
    monkeypatch.setenv("DINOMED3D_SLICES", "5")
    with pytest.raises(
        UserError, match=r"fold_0 .* another network .*slices: 3 there, 5 asked for"
    ):
        trainer(fold=1)


def test_resuming_with_another_network_is_refused(nnunet, monkeypatch):
    with pytest.raises(Killed):
        run(monkeypatch, kill_at=(1, 0))
    monkeypatch.setenv("DINOMED3D_SLICES", "5")
    with pytest.raises(UserError, match="slices: 3 there, 5 asked for"):
        run(monkeypatch, continued=True)


def test_a_loss_that_is_not_finite_stops_training(nnunet):
    t = trainer()
    t.initialize()
    t.on_train_epoch_start()
    batch = {
        "data": torch.full((2, 1, 6, 20, 16), float("nan")),
        "target": [torch.zeros(2, 1, 6, 20, 16)],
    }
    with pytest.raises(FloatingPointError, match="epoch 0.*lower rates"):
        t.train_step(batch)


def test_rates_and_groups_of_both_stages(nnunet):
    t = trainer()
    t.initialize()
    by_peak = {g["peak"]: g["params"] for g in t.optimizer.param_groups}
    assert set(by_peak) == {t.recipe.rate_encoder, t.recipe.rate_proxy}
    t.stage = 2
    optimizer, _ = t.configure_optimizers()
    assert {g["peak"] for g in optimizer.param_groups} == {
        t.recipe.rate_adapters,
        t.recipe.rate_decoder,
    }
    assert {g["weight_decay"] for g in optimizer.param_groups if g["params"][0].ndim < 2} == {0.0}
