"""Inputs of pretrained 3D encoders: the same numbers as the field's own transforms, on every path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pointseg.cloud import Cloud
from pointseg.config.pretrained_inputs import INPUTS
from pointseg.config.recipe import InferenceConfig, Recipe
from pointseg.config.validation import RecipeError
from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.evaluation.scene_predictor import ScenePredictor
from pointseg.loading.pretrained_input import pretrained_input
from pointseg.loading.samples import training_steps, usable, validation_steps
from pointseg.loading.to_cloud import to_cloud
from pointseg.scene import Scene
from pointseg.transforms import Augmentation, InputTransform
from tests.pointseg.transforms.rooms import room

NAMES = ["sonata", "utonia_indoor", "utonia_outdoor", "utonia_object", "concerto_outdoor"]


@pytest.fixture(scope="module")
def golden(shared):
    return dict(np.load(shared / "golden" / "pretrained_inputs" / "io.npz"))


@pytest.fixture(scope="module")
def scene(golden) -> Scene:
    fields = {name: golden[name].astype(np.float32) for name in ("color", "normal")}
    # far away, as georeferenced clouds are: where they are in the world plays no part
    return Scene(golden["coord"], fields, origin=np.array([5e5, 5e6, 100.0]))


def recipe_of(name: str, **changes) -> Recipe:
    return INPUTS[name].apply(Recipe(dataset="folder", augmentation=Augmentation.none(), **changes))


def check(cloud: Cloud, golden, name: str) -> None:
    """Each point has a voxel of its own, by which rows are compared."""
    wanted = {key: golden[f"{name}:{key}"] for key in ("coord", "grid_coord", "feat")}
    order = np.lexsort(wanted["grid_coord"].T[::-1])
    np.testing.assert_array_equal(cloud.grid_coord, wanted["grid_coord"][order])
    np.testing.assert_allclose(cloud.coord, wanted["coord"][order], rtol=0, atol=1e-6)
    np.testing.assert_allclose(cloud.feat, wanted["feat"][order], rtol=0, atol=1e-6)


class Recorder(nn.Module):
    """Remembers its input; the class is 1 where the first colour is above a half."""

    def forward(self, cloud: Cloud) -> torch.Tensor:
        self.cloud = cloud
        red = cloud.feat[:, 3]
        return torch.stack([0.5 - red, red - 0.5], 1)


@pytest.mark.parametrize("name", NAMES)
def test_all_paths_make_the_published_input(golden, scene, name):
    found = pretrained_input(scene, name)
    check(found.cloud, golden, name)
    np.testing.assert_allclose(
        found.cloud.feat[found.inverse], golden[f"{name}:feat"], rtol=0, atol=1e-6
    )
    recipe = recipe_of(name)
    for steps in (validation_steps(recipe), training_steps(recipe)):
        sampled = steps(usable(scene, recipe, labelled=False), np.random.default_rng(0))
        check(to_cloud(sampled, recipe), golden, name)
    for single_pass in (True, False):
        model = Recorder()
        protocol = InferenceProtocol(config=InferenceConfig(), single_pass=single_pass)
        labels = ScenePredictor(model, recipe, 2, protocol).predict_labels(scene)
        check(model.cloud, golden, name)
        np.testing.assert_array_equal(labels, golden["color"][:, 0] > 127)  # of the file's rows


@pytest.mark.parametrize("name", NAMES)
def test_coordinates_among_the_features_are_those_of_the_points(name):
    varied = replace(recipe_of(name), augmentation=Augmentation(), max_points=150)
    whole = room(2000).without("image_coord", "image_mask")
    for seed in range(3):
        made = training_steps(varied)(usable(whole, varied), np.random.default_rng(seed))
        cloud = to_cloud(made, varied)
        torch.testing.assert_close(cloud.feat[:, :3], cloud.coord, rtol=0, atol=0)
        assert 0 <= cloud.feat[:, 3:6].min() and 0.5 < cloud.feat[:, 3:6].max() <= 1
        assert cloud.coord.abs().max() < 18 * varied.input.scale  # units of the network


def test_voxels_of_a_scaled_cloud_are_as_many_as_before():
    whole = room(2000)
    one = pretrained_input(whole, "sonata").cloud
    half = pretrained_input(whole, "utonia_indoor").cloud
    torch.testing.assert_close(one.grid_coord, half.grid_coord, rtol=0, atol=0)
    torch.testing.assert_close(one.coord, 2 * half.coord, rtol=0, atol=0)


def test_missing_fields_are_zeros_only_if_named():
    bare = room(color=False).without("normal")
    with pytest.raises(ValueError, match="lacks color, normal"):
        pretrained_input(bare, "sonata")
    feat = pretrained_input(bare, "sonata", zeros=("color", "normal")).cloud.feat
    assert feat.shape[1] == 9 and (feat[:, 3:] == 0).all() and (feat[:, :3] != 0).any()
    # what a model was trained without stays away, although this cloud has it
    feat = pretrained_input(room(), "sonata", zeros=("normal",)).cloud.feat
    assert (feat[:, 6:] == 0).all() and (feat[:, 3:6] != 0).any()


def test_an_object_fills_the_unit_sphere():
    coord = np.float32([[0, 0, 0], [4, 0, 0], [0, 4, 0], [4, 4, 0]])
    steps = InputTransform(unit_sphere=True).before
    found = steps[0](Scene(coord), np.random.default_rng(0)).coord
    np.testing.assert_allclose(found, (coord - [2, 2, 0]) / np.sqrt(8), atol=1e-7)


@pytest.mark.parametrize(
    ("transform", "match"),
    [
        (dict(scale=0), "'scale' must be above 0, got 0"),
        (dict(zeros=("coord",)), "'zeros' must be some of color, normal, strength, got coord"),
    ],
)
def test_refusals(transform, match):
    with pytest.raises(ValueError, match=match):
        InputTransform(**transform)


def test_refusals_of_recipes():
    with pytest.raises(RecipeError, match=r"'input.center_outdoor' must be false indoors"):
        Recipe(dataset="x", input=InputTransform(center_outdoor=True))
    with pytest.raises(ValueError, match=r"'expected' must be one of sonata, .* got 'nova'"):
        pretrained_input(room(), "nova")
