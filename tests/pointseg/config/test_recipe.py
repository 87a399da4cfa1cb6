"""Recipes are data: written, read back, changed by key=value, refused where they cannot be."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from pointseg.config.presets import RECIPES, SIZES, images_for, recipe_for
from pointseg.config.recipe import PointCloudFormat, Recipe
from pointseg.config.serialization import override, read_recipe
from pointseg.config.validation import RecipeError
from pointseg.loading.samples import training_steps, validation_steps
from pointseg.scene import Scene
from pointseg.training.step.optimizer import build_optimizer, build_scheduler


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("backbone", SIZES)
def test_recipes_survive_being_written(name: str, backbone: str) -> None:
    for size in SIZES[backbone]:
        recipe = recipe_for(name, backbone, size)
        assert read_recipe(recipe.to_json()) == recipe


def test_the_numbers_of_the_published_configurations() -> None:
    scannet, s3dis, kitti = (recipe_for(n, "ptv3", "full") for n in ("scannet", "s3dis", "semantickitti"))  # fmt: skip
    assert (scannet.optimizer.lr, scannet.optimizer.block_lr_scale) == (6e-3, 0.1)
    assert (scannet.voxel_m, scannet.max_points, scannet.epochs) == (0.02, 102_400, 800)
    assert scannet.in_channels == 6 and scannet.needs == ("color", "normal")
    assert (s3dis.max_points, s3dis.sphere_fraction, s3dis.epochs) == (204_800, 0.6, 3000)
    waymo = recipe_for("waymo", "ptv3", "full")
    assert waymo.clip_box_m == (-75.2, -75.2, -4, 75.2, 75.2, 2) and waymo.epochs == 50
    assert (waymo.voxel_m, waymo.optimizer.lr, waymo.class_weights) == (0.05, 2e-3, "none")
    rooms = recipe_for("structured3d", "ptv3", "full")
    assert (rooms.max_points, rooms.sphere_fraction, rooms.voxel_m) == (204_800, 0.8, 0.02)
    assert s3dis.augmentation.elastic_probability == 0
    assert (kitti.optimizer.lr, kitti.optimizer.weight_decay) == (2e-3, 0.005)
    assert kitti.clip_box_m == (-35.2, -35.2, -4, 35.2, 35.2, 2)
    assert kitti.in_channels == 4 and kitti.needs == ("strength",)
    assert kitti.class_weights == "auto" and kitti.batch_size == 12
    assert recipe_for("scannet", "minkunet", "full").optimizer.name == "sgd"


@pytest.mark.parametrize(("dataset", "epochs"), [("s3dis", 3000), ("scannet", 800)])
def test_the_numbers_of_pointnext(dataset: str, epochs: int) -> None:
    recipe = recipe_for(dataset, "pointnext", "full")
    found = (recipe.voxel_m, recipe.max_points, recipe.batch_size, recipe.epochs)
    assert found == (0.04, 24_000, 8, epochs)
    assert (recipe.label_smoothing, recipe.lovasz, recipe.mix3d) == (0.2, 0, 0)
    spec = recipe.optimizer
    assert (spec.name, spec.weight_decay, spec.clip_norm) == ("adamw", 1e-4, 10)
    optimizer = build_optimizer(nn.Linear(2, 2), spec)
    scheduler, rates = build_scheduler(optimizer, spec, steps=101), []
    for step in range(101):
        rates.append(scheduler.get_last_lr()[0])
        assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
        optimizer.step()
        if step < 100:
            scheduler.step()
    # a cosine from the first step on
    assert (rates[0], rates[-1]) == pytest.approx((1e-2, 1e-5), rel=1e-3)
    assert rates[50] == pytest.approx((1e-2 + 1e-5) / 2, rel=0.05)
    assert recipe_for(dataset, "pointnext", "small").optimizer.lr == 6e-3
    assert recipe_for("nuscenes", "pointnext", "full").optimizer.lr == 2e-3


def test_changes_reach_inside() -> None:
    recipe = override(
        RECIPES["scannet"],
        [
            "epochs=5",
            "optimizer.lr=1",  # whole numbers are numbers
            "features=coord,color",
            "augmentation.elastic=[[0.1, 0.2]]",
            "max_points=null",
            "backbone_config.enc_depths=[1, 1, 1, 1, 1]",
            "test.tta=single",
        ],
    )
    assert (recipe.epochs, recipe.optimizer.lr, recipe.features) == (5, 1.0, ("coord", "color"))
    assert recipe.augmentation.elastic == ((0.1, 0.2),)
    assert recipe.max_points is None
    assert recipe.backbone_config == {"enc_depths": [1, 1, 1, 1, 1]}
    assert recipe.test.tta == "single"
    assert RECIPES["scannet"].epochs == 800


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epochs", "must be key=value"),
        ("epoch=3", "'epoch' is none of dataset, backbone"),
        ("optimizer.rate=3", "'rate' is none of name, lr"),
        ("epochs.x=3", "'epochs' has nothing inside"),
        ("epochs=many", "'epochs': must be int, got 'many'"),
        ("epochs=2.5", "must be int, got 2.5"),
        ("epochs=true", "must be int, got True"),
        ("epochs=0", "'epochs' must be >= 1, got 0"),
        (
            "features=color,colour",
            "'features' must be some of color, normal, strength, returns, height_above_ground, coord",
        ),
        ("clip_box_m=[1, 2]", "'clip_box_m' must be x, y, z minima"),
        ("augmentation.scale_low=-1", "'scale_low' must be above 0"),
        ("optimizer.name=adam", "'name' must be adamw or sgd"),
        ("backbone_config=3", "must be an object"),
        ("backbone_config.in_channels=3", "must not set in_channels"),
        ("test.margin_m=-1", "'margin_m' must be >= 0 metres"),
        ("optimzer.lr=1", "did you mean optimizer.lr"),
        ("lr=1", "did you mean optimizer.lr"),
        ("voxl_m=1", "did you mean voxel_m"),
        ("test.tta=many", "'tta' must be one of single, scannet"),
        ("mix3d=2", "'mix3d' must be a probability"),
        ("label_smoothing=1", r"'label_smoothing' must be in \[0, 1\)"),
        ("dataset=3", "must be text"),
    ],
)
def test_changes_that_do_not_fit(change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        override(RECIPES["scannet"], [change])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("[]", "must be an object"),
        ("{}", "lacks dataset"),
        ('{"datasets": "x"}', "unknown keys datasets"),
    ],
)
def test_texts_that_are_no_recipe(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_recipe(text)


def test_what_an_older_recipe_lacks_has_its_default() -> None:
    content = json.loads(RECIPES["scannet"].to_json())
    del content["cloud_format"], content["optimizer"]["cycle_momentum"]
    assert read_recipe(json.dumps(content)) == RECIPES["scannet"]


def test_keys_of_older_checkpoints_are_read() -> None:
    recipe = replace(
        RECIPES["scannet"],
        images=images_for("scannet", "vit_small_patch16_dinov3"),
        cloud_format=PointCloudFormat(unit_m=0.001, up="y", intensity_max=9.0, columns=("x", "y")),
    )
    content = json.loads(recipe.to_json())
    visibility = content["images"].pop("visibility")
    visibility["margin_m"] = visibility.pop("depth_tolerance_m")
    content["images"] |= visibility
    content["images"]["allow_unseen"] = content["images"].pop("allow_missing_images")
    content["setting"] = content.pop("scene_type")
    content["test"]["views"] = content["test"].pop("tta")
    content["form"] = content.pop("cloud_format")
    content["form"]["strength_max"] = content["form"].pop("intensity_max")
    assert read_recipe(json.dumps(content)) == recipe


def test_a_written_recipe_with_a_foreign_key_is_refused() -> None:
    content = json.loads(RECIPES["s3dis"].to_json())
    content["optimizer"]["amsgrad"] = True
    with pytest.raises(RecipeError, match="'optimizer': unknown keys amsgrad"):
        read_recipe(json.dumps(content))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("kitty", "ptv3", "full"), "--dataset kitty: is none of scannet"),
        (("s3dis", "ptv2", "full"), "--backbone ptv2: is none of ptv3"),
        (("s3dis", "ptv3", "huge"), "--model-size huge: ptv3 has only the sizes full, small"),
    ],
)
def test_unknown_names(words: tuple[str, str, str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_for(*words)


def test_features_make_channels() -> None:
    recipe = replace(Recipe(dataset="x"), features=("coord", "strength", "normal"))
    assert recipe.in_channels == 7 and recipe.needs == ("strength", "normal")


def test_what_training_files_were_like_is_part_of_a_recipe() -> None:
    changes = ["cloud_format.up=-y", "cloud_format.unit_m=0.001", "cloud_format.columns=x,y,z"]
    recipe = override(RECIPES["folder"], changes)
    assert read_recipe(recipe.to_json()).cloud_format == recipe.cloud_format
    with pytest.raises(RecipeError, match="'up' must be one of z, y, -y, got 'x'"):
        override(recipe, ["cloud_format.up=x"])


def test_points_outside_the_box_may_be_left_out() -> None:
    recipe = override(
        RECIPES["semantickitti"], ["drop_outside=true", "clip_box_m=[-1,-1,-1,1,1,1]"]
    )
    recipe = replace(recipe, augmentation=recipe.augmentation.none())
    coord = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [9, 0, 0]], np.float32)
    rng = np.random.default_rng(0)
    for steps in (training_steps, validation_steps):
        assert np.abs(steps(recipe)(Scene(coord), rng).coord).max() <= 0.5
        kept = steps(replace(recipe, drop_outside=False))(Scene(coord), rng)
        assert len(kept) == 3 and np.abs(kept.coord).max() == 1
