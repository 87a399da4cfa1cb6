"""A linear probe of a pretrained 3D encoder, alone and with image features."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dinomed3d.runtime.errors import UserError
from pointseg.backbones import read_pretrained
from pointseg.config.encoder_recipe import with_pretrained_input
from pointseg.config.presets import recipe_for
from pointseg.config.serialization import override, read_recipe
from pointseg.images.config import ImageConfig
from pointseg.models.initial_file import open_initial
from pointseg.models.network import build_segmenter
from pointseg.models.pretrained import weights_of
from pointseg.models.trained_model import load_model
from pointseg.training.train import train
from tests.pointseg.tiny import CLASSES, RECIPE, Boxes, spec
from tests.pointseg.tiny_encoders import write_encoder


@pytest.fixture(scope="module")
def sonata(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "sonata.pth"
    write_encoder(path)
    return path


@pytest.fixture(scope="module")
def probe(sonata):
    """The opened file, and the recipe of a run on Boxes, as pointseg-train makes it."""
    start = open_initial(sonata, "linear")
    usual = recipe_for("folder", "linear", "full")
    recipe = replace(
        RECIPE, backbone="linear", backbone_config={}, optimizer=usual.optimizer, epochs=1
    )
    recipe = with_pretrained_input(start.fit(recipe), Boxes.fields)
    return start, override(recipe, ["input.zeros=normal", "evaluations=1", "mix3d=0"])


def test_the_file_decides_the_encoder_and_its_input(probe):
    start, recipe = probe
    assert recipe.backbone_config["encoder"] == "sonata"
    assert recipe.backbone_config["encoder_config"]["enc_channels"] == [12, 12, 24]
    assert recipe.features == ("coord", "color", "normal")
    assert recipe.input.scale == pytest.approx(0.02 / recipe.voxel_m)
    assert read_recipe(recipe.to_json()) == recipe
    assert start.licence


def test_the_encoder_is_that_of_the_file_also_after_training_and_saving(probe, sonata, tmp_path):
    start, recipe = probe
    init = weights_of(start, CLASSES.names, recipe)
    result = train(spec(tmp_path, recipe=recipe, dataset=Boxes(count=2, validated=1), init=init))
    model, _ = load_model(result.last, "cpu")
    published = read_pretrained(sonata).state
    kept = model.backbone.encoder.state_dict()
    assert kept and all(torch.equal(kept[key], published[key]) for key in kept)
    assert model.backbone.encoder_norm.num_batches_tracked > 0


def test_both_are_read_together(probe):
    _, recipe = probe
    images = ImageConfig(encoder_config={"embed_dim": 24}, channels=24, stride=16, size=(64, 64))
    alone, both = (build_segmenter(replace(recipe, images=found), 2) for found in (None, images))
    assert alone.backbone.out_channels == 12 + 12 + 24
    assert both.seg_head.in_features == 24 + 1 + 12 + 12 + 24


def test_what_it_refuses(probe, tmp_path):
    _, recipe = probe
    with pytest.raises(UserError, match="tune"):
        build_segmenter(replace(recipe, tune="linear"), 2)
    with pytest.raises(UserError, match="--images.*--init"):
        build_segmenter(replace(recipe, backbone_config={}), 2)
    for name in ("os:path", "linear", "ptv4"):
        with pytest.raises(UserError, match="'encoder'"):
            build_segmenter(replace(recipe, backbone_config={"encoder": name}), 2)
