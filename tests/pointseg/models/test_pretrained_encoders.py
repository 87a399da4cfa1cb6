"""Runs that start from pretrained 3D encoders: what is trained, at which rate, and what a checkpoint keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from dinomed3d.runtime.errors import UserError
from pointseg.backbones import BackboneWeightsError
from pointseg.cloud import collate
from pointseg.config.encoder_recipe import check_fields, with_configuration, with_pretrained_input
from pointseg.config.presets import recipe_for
from pointseg.config.recipe import Recipe
from pointseg.config.serialization import override, read_recipe
from pointseg.config.validation import RecipeError
from pointseg.loading.samples import Samples
from pointseg.models.checkpoint import read_checkpoint, save_checkpoint
from pointseg.models.initial_file import open_initial
from pointseg.models.network import build_segmenter
from pointseg.models.pretrained import initial_weights, weights_of
from pointseg.models.trained_model import load_model
from pointseg.training.step.learner import Learner
from pointseg.training.step.optimizer import build_optimizer
from pointseg.training.tasks.distillation import Distillation
from pointseg.training.tasks.segmentation import Segmentation
from pointseg.training.train import train
from tests.pointseg.painted import IMAGES
from tests.pointseg.tiny import CLASSES, RECIPE, Boxes, spec
from tests.pointseg.tiny_encoders import CONFIG, write_encoder

FEW = Boxes(count=2, validated=1)
NO_NORMAL = ["input.zeros=normal"]  # Boxes have colours only


@pytest.fixture(scope="module")
def sonata(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("published") / "sonata.pth"
    write_encoder(path)
    return path


def recipe_of(path: Path, tune: str = "all", backbone: str = "sonata") -> Recipe:
    """Of a run on Boxes, as pointseg-train makes it."""
    size = recipe_for("folder", backbone, "full", tune)
    recipe = replace(
        RECIPE, backbone=backbone, backbone_config={}, tune=tune, optimizer=size.optimizer
    )
    start = open_initial(path, backbone)
    fitted = with_pretrained_input(start.fit(recipe), Boxes.fields)
    return replace(override(fitted, NO_NORMAL), licence=start.licence)


def backbone_of(state, part: str = "") -> dict[str, torch.Tensor]:
    begins = f"backbone.{part}"
    return {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith(begins)}


def started(path: Path, tune: str, **changes):
    recipe = replace(recipe_of(path, tune), **changes)
    torch.manual_seed(0)
    model = build_segmenter(recipe, 2)
    initial_weights(path, CLASSES.names, recipe)(model)
    return recipe, model


def test_the_file_decides_the_network(sonata):
    recipe = recipe_of(sonata)
    assert recipe.backbone_config["enc_channels"] == [12, 12, 24]
    assert recipe.backbone_config["dec_depths"] == [2, 2]
    assert recipe.backbone_config["dec_channels"] == [12, 12]
    assert not {"in_channels", "mask_token", "enc_mode", "freeze_encoder"} & set(
        recipe.backbone_config
    )
    assert read_recipe(recipe.to_json()) == recipe  # also where a run is resumed


def test_published_decoders():
    base = CONFIG | {
        "stride": (2,) * 4, "enc_depths": (3, 3, 3, 12, 3), "enc_patch_size": (1024,) * 5,
        "enc_channels": (48, 96, 192, 384, 512), "enc_num_head": (3, 6, 12, 24, 32),
    }  # fmt: skip
    found = with_configuration(Recipe(dataset="x", backbone="sonata"), base).backbone_config
    assert found["dec_channels"] == [64, 96, 192, 384] and found["dec_num_head"] == [4, 6, 12, 24]
    wide = base | {"enc_channels": (54, 108, 216, 432, 576)}
    found = with_configuration(Recipe(dataset="x", backbone="utonia"), wide).backbone_config
    assert found["dec_channels"] == [54, 108, 216, 432] and found["dec_num_head"] == [3, 6, 12, 24]
    assert found["dec_depths"] == [2] * 4 and found["dec_patch_size"] == [1024] * 4


@pytest.mark.parametrize(
    ("dataset", "backbone", "tune", "wanted"),
    [
        ("scannet", "sonata", "linear", (2e-3, 2e-4, 0.02, 24, 800)),
        ("s3dis", "sonata", "all", (2e-3, 2e-4, 0.02, 24, 3000)),
        ("scannet", "utonia", "decoder", (2e-3, 2e-4, 0.02, 64, 800)),
        ("scannet", "utonia", "all", (1e-3, 1e-4, 0.01, 64, 800)),
        ("nuscenes", "utonia", "all", (1e-3, 2e-5, 0.05, 64, 50)),
        ("semantickitti", "utonia", "all", (1e-4, 2e-5, 0.02, 64, 50)),
        ("scannet", "litept", "all", (6e-3, 6e-4, 0.05, 12, 1200)),
        ("nuscenes", "litept", "all", (2e-3, 2e-4, 0.005, 12, 50)),
        ("structured3d", "litept", "all", (6e-3, 6e-4, 0.05, 48, 200)),
    ],
)
def test_the_numbers_of_the_published_recipes(dataset, backbone, tune, wanted):
    recipe = recipe_for(dataset, backbone, "full", tune)
    optimizer = recipe.optimizer
    rates = optimizer.lr, optimizer.lr * optimizer.block_lr_scale
    found = (*rates, optimizer.weight_decay, recipe.batch_size, recipe.epochs)
    assert found == pytest.approx(wanted)
    assert recipe.tune == tune and optimizer.warmup_fraction in (0.04, 0.05)
    if backbone != "litept":
        assert optimizer.clip_norm == 3 and recipe.mix3d == 0.8


@pytest.mark.parametrize(
    ("dataset", "backbone", "scale", "zeros"),
    [
        ("scannet", "sonata", 1.0, ()),
        ("scannet", "utonia", 0.5, ()),
        ("nuscenes", "utonia", 0.2, ("color", "normal")),
        ("nuscenes", "sonata", 0.2, ("color", "normal")),  # Concerto
        ("synthetic", "utonia", 1 / 6, ()),  # voxels of 6 cm are cells of 0.01
    ],
)
def test_the_input_is_that_of_the_weights(dataset, backbone, scale, zeros):
    recipe = recipe_for(dataset, backbone, "full" if dataset != "synthetic" else "tiny")
    found = with_pretrained_input(recipe, frozenset(recipe.needs))
    assert found.features == ("coord", "color", "normal")
    assert found.input.scale == pytest.approx(scale) and found.input.zeros == zeros
    assert found.input.center_outdoor == (dataset == "nuscenes" and backbone == "sonata")
    assert found.voxel_m == recipe.voxel_m
    plain = recipe_for(dataset, "litept", "full")
    assert with_pretrained_input(plain, frozenset(plain.needs)) == plain


@pytest.mark.parametrize("tune", ["linear", "decoder", "all"])
def test_what_is_trained(sonata, tune):
    """Two steps: weights that are not trained stay to the bit, and the optimizer knows nothing of them."""
    recipe, model = started(sonata, tune)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fabric = Fabric(accelerator="cpu", devices=1)
    learner = Learner(fabric, model, recipe.optimizer, steps=2)
    task = Segmentation(FEW, recipe)
    cloud = collate([Samples(FEW, recipe, training=True, seed=0)[0, k] for k in (0, 1)])
    for _ in range(2):
        learner.begin_step()
        learner.accumulate(cloud, task.losses, batches=1, is_last=True)
        learner.finish_step()
    after = learner.network.state_dict()
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    kept = {"linear": "backbone.", "decoder": ("backbone.enc.", "backbone.embedding."), "all": "-"}
    assert not [key for key in moved if key.startswith(kept[tune])]
    assert any(key.startswith("seg_head.") for key in moved)
    assert any(key.startswith("backbone.dec.") for key in moved) == (tune != "linear")
    assert any(key.startswith("backbone.enc.") for key in moved) == (tune == "all")
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = learner.optimizer.param_groups
    assert sum(len(group["params"]) for group in groups) == len(trained)
    assert len(learner.optimizer.state) == len(trained)
    assert learner.parameters == sum(p.numel() for p in trained)


def test_blocks_of_encoder_and_decoder_have_the_lower_rate(sonata):
    recipe, model = started(sonata, "all")
    optimizer = build_optimizer(model, recipe.optimizer)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert rate[id(parameter)] == pytest.approx(2e-4 if ".block" in name else 2e-3), name
    assert any(".enc." in n and ".block" in n for n, _ in model.named_parameters())


def test_frozen_features_in_training_are_those_of_prediction(sonata):
    recipe, model = started(sonata, "linear")
    cloud = collate([Samples(Boxes(), recipe, training=False, seed=0)[0, k] for k in (0, 1)])
    model.train()
    assert model.training and model.seg_head.training and not model.backbone.training
    once, twice = model(cloud), model(cloud)  # with drop path and shuffled curves they would differ
    torch.testing.assert_close(once, twice, rtol=0, atol=0)
    torch.testing.assert_close(once, model.eval()(cloud), rtol=0, atol=0)
    assert model.backbone.out_channels == 48  # features of all levels
    recipe, model = started(sonata, "decoder")
    model.train()
    assert model.backbone.dec.training and not model.backbone.enc.training
    found = model.backbone(cloud)
    assert not found.levels[-1].feat.requires_grad and found.feat.requires_grad


def test_a_head_then_a_decoder_then_all(sonata, tmp_path):
    """Checkpoints start the next run, whatever is trained there; the licence goes along, the file need not."""
    own = tmp_path / "sonata.pth"
    own.write_bytes(sonata.read_bytes())
    encoder = {k: v for k, v in read_state(sonata).items() if k != "embedding.mask_token"}
    path, said = own, []
    for tune in ("linear", "decoder", "all"):
        recipe = recipe_of(path, tune)
        model = build_segmenter(recipe, 2)
        said.append(initial_weights(path, CLASSES.names, recipe)(model))
        path = tmp_path / f"{tune}.pt"
        save_checkpoint(path, model.state_dict(), recipe=recipe, classes=CLASSES)
        own.unlink(missing_ok=True)
        model, trained = load_model(path, "cpu")
        assert "CC-BY-NC 4.0" in trained.recipe.licence and "CC-BY-NC" in trained.notes[0]
        state = model.backbone.state_dict()
        assert all(torch.equal(state[key], value) for key, value in encoder.items())
    first, second, third = said
    assert "the mask token is left out" in first and "the head is new" in first
    assert "the decoder is new; the head is new; licence" in second
    assert "the decoder is" not in third and "the head is taken, too" in third
    assert "CC-BY-NC" not in first and "CC-BY-NC" in third  # of the file its reader says it


def read_state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_the_licence_survives_a_resumed_run(sonata, tmp_path):
    recipe = replace(recipe_of(sonata, "linear"), epochs=1, evaluations=1, batch_size=5)
    init = initial_weights(sonata, CLASSES.names, recipe)
    done = train(spec(tmp_path, recipe=recipe, init=init, dataset=FEW))
    start = open_initial(done.last, "sonata")
    assert start.licence == recipe.licence != ""
    with pytest.raises(UserError, match="another recipe"):
        train(spec(tmp_path, recipe=replace(recipe, licence=""), resume=True, dataset=FEW))
    again = train(spec(tmp_path, recipe=recipe, resume=True, dataset=FEW))
    assert read_recipe(read_checkpoint(again.last)["recipe"]).licence == recipe.licence


def test_students_of_distillation_start_from_it_too(sonata, tmp_path):
    images = replace(IMAGES, channels=24, stride=16)
    recipe = replace(recipe_of(sonata), images=images)
    student = Distillation(recipe, None).build()
    weights_of(open_initial(sonata, "sonata"), (), recipe)(student)
    encoder = {k: v for k, v in read_state(sonata).items() if k != "embedding.mask_token"}
    state = student.backbone.state_dict()
    assert all(torch.equal(state[key], value) for key, value in encoder.items())
    path = tmp_path / "student.pt"
    Distillation(recipe, None).save(path, student.state_dict(), None)
    bare = replace(recipe_of(path), tune="decoder")
    assert "CC-BY-NC" in bare.licence
    model = build_segmenter(bare, 2)
    assert "distilled backbone" in initial_weights(path, CLASSES.names, bare)(model)
    taught = student.backbone.state_dict()
    assert all(torch.equal(value, taught[k]) for k, value in model.backbone.state_dict().items())
    with pytest.raises(UserError, match="tune=linear: all of a student is trained"):
        Distillation(replace(recipe, tune="linear"), None)


def test_data_without_what_the_weights_read():
    recipe = with_pretrained_input(recipe_for("folder", "sonata", "full"), frozenset({"color"}))
    with pytest.raises(RecipeError, match=r"mine has no normal; .*input.zeros=\[\"normal\"\]"):
        check_fields(recipe, "mine", frozenset({"color"}))
    check_fields(override(recipe, NO_NORMAL), "mine", frozenset({"color"}))
    recipe = with_pretrained_input(recipe_for("folder", "utonia", "full"), frozenset())
    check_fields(recipe, "mine", frozenset())  # trained for that
    assert recipe.input.zeros == ("color", "normal")


def test_other_channels_only_when_asked(sonata):
    recipe = replace(recipe_of(sonata), features=("color", "strength"))
    start, model = open_initial(sonata, "sonata"), build_segmenter(recipe, 2)
    with pytest.raises(BackboneWeightsError, match=r"9 channels \(coord, color, normal"):
        weights_of(start, CLASSES.names, recipe)(model)
    weights_of(start, CLASSES.names, recipe, adapt_input=True)(model)
    weight = model.backbone.state_dict()["embedding.stem.linear.weight"]
    theirs = read_state(sonata)["embedding.stem.linear.weight"]
    torch.testing.assert_close(weight[:, :3], theirs[:, 3:6], rtol=0, atol=0)
    assert (weight[:, 3:] == 0).all()


def test_files_that_are_no_start(sonata, tmp_path):
    head = {"seg_head.weight": torch.zeros(20, 1232), "seg_head.bias": torch.zeros(20)}
    path = tmp_path / "sonata_linear_prob_head_sc.pth"
    torch.save(
        {"config": {"num_classes": 20, "backbone_out_channels": 1232}, "state_dict": head}, path
    )
    with pytest.raises(
        UserError, match="head_sc.pth: hold a head for classes alone; give the file of the network"
    ):
        open_initial(path, "sonata")
    with pytest.raises(UserError, match="holds weights of sonata, this run has --backbone utonia"):
        open_initial(sonata, "utonia").fit(recipe_for("folder", "utonia", "full"))
    with pytest.raises(UserError, match="there is no such file"):
        open_initial(tmp_path / "none", "sonata")
    with pytest.raises(UserError, match="'tune' must be linear or all with minkunet, got decoder"):
        build_segmenter(replace(RECIPE, tune="decoder"), 2)


def test_utonia_too(tmp_path):
    write_encoder(tmp_path / "utonia.pth", "utonia")
    recipe = recipe_of(tmp_path / "utonia.pth", "decoder", "utonia")
    model = build_segmenter(recipe, 2)
    initial_weights(tmp_path / "utonia.pth", CLASSES.names, recipe)(model)
    cloud = collate([Samples(Boxes(), recipe, training=True, seed=0)[0, 0]])
    np.testing.assert_allclose(recipe.input.scale, 0.1)  # voxels of 0.1 m are cells of 0.01
    assert cloud.coord.abs().max() < 0.3 and torch.equal(cloud.feat[:, :3], cloud.coord)
    model.train()(cloud).sum().backward()
    frozen = [model.backbone.embedding, model.backbone.enc]
    assert all(p.grad is None for part in frozen for p in part.parameters())
    assert all(p.grad is not None for p in model.backbone.dec.parameters())
    assert isinstance(model.backbone.enc, nn.Module)
