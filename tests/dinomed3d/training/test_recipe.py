"""The recipe: schedule by hand, what the environment may change, and what it may not."""

import math
from dataclasses import asdict

import pytest

from dinomed3d.networks import NetworkSpec
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.recipe import Recipe, recipe_from, spec_from


def test_rates_rise_then_fall_as_half_a_cosine_in_each_stage():
    recipe = Recipe(stage1_epochs=1, stage2_epochs=2, iterations_per_epoch=10, warmup=0.2)
    first = [recipe.rate_factor(0, i) for i in range(10)]
    assert first[:3] == [1 / 3, 2 / 3, 1.0]  # 2 of 10 steps warm up
    assert first[6] == 0.5 and first[9] == pytest.approx(0.5 * (1 + math.cos(7 / 8 * math.pi)))
    second = [recipe.rate_factor(1 + i // 10, i % 10) for i in range(20)]
    assert second[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert second[12] == 0.5 and all(0 < rate <= 1 for rate in second)


def test_stage_one_draws_within_both_bounds():
    recipe = Recipe(stage1_slices=96, stage1_tokens=16384)
    assert [recipe.slices_per_step(t) for t in (35, 170, 171, 1024, 65536)] == [96, 96, 95, 16, 2]


def test_stages_by_epoch():
    recipe = Recipe(stage1_epochs=2, stage2_epochs=1)
    assert [recipe.stage(epoch) for epoch in range(3)] == [1, 1, 2]
    assert Recipe(stage1_epochs=0).stage(0) == 2


def test_environment_changes_the_plan_and_the_plan_the_defaults():
    plan = {"stage1_epochs": 7, "rate_decoder": 0.5}
    found = recipe_from(
        plan, {"DINOMED3D_STAGE1_EPOCHS": "3", "DINOMED3D_WEIGHTS": "some/file.pth"}
    )
    assert (found.stage1_epochs, found.rate_decoder, found.weights) == (3, 0.5, "some/file.pth")
    assert recipe_from({}, {}) == Recipe()


def test_a_random_encoder_learns_faster_unless_told_otherwise():
    none = {"DINOMED3D_WEIGHTS": "none"}
    assert recipe_from({}, none).rate_encoder == 10 * Recipe().rate_encoder
    assert recipe_from({}, none | {"DINOMED3D_RATE_ENCODER": "0.25"}).rate_encoder == 0.25
    assert (
        recipe_from({"rate_encoder": 0.125}, none).rate_encoder == 1.25
    )  # a plan's is for pretrained ones
    assert recipe_from({"rate_encoder": 0.125}, {}).rate_encoder == 0.125
    # a checkpoint's recipe has had this already
    kept = asdict(recipe_from({}, none))
    assert recipe_from(kept, none).rate_encoder == kept["rate_encoder"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("stage1_epochs", "fifty"), ("stage1_epochs", 1.5), ("clip", None), ("weights", 3)],
)
def test_a_plan_with_a_field_of_another_type_is_refused(field, value):
    with pytest.raises(UserError, match=f"recipe field '{field}' must be of type"):
        recipe_from({field: value}, {})


def test_environment_changes_the_network():
    changed = spec_from(
        NetworkSpec(),
        {
            "DINOMED3D_ENCODER": "vit_base_patch16_dinov3",
            "DINOMED3D_ENCODER_OVERRIDES": '{"depth": 2}',
            "DINOMED3D_PARTS": "encoder, detail",
            "DINOMED3D_SLICES": "5",
        },
    )
    assert (changed.encoder, changed.encoder_overrides) == ("vit_base_patch16_dinov3", {"depth": 2})
    assert (changed.parts, changed.slices) == (("encoder", "detail"), 5)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"DINOMED3D_STAGE1_EPOCHS": "many"}, "STAGE1_EPOCHS must be a whole number, got 'many'"),
        ({"DINOMED3D_RATE_DECODER": "fast"}, "RATE_DECODER must be a number, got 'fast'"),
        ({"DINOMED3D_STAGE2_EPOCHS": "0"}, "'stage2_epochs' must be positive, got 0"),
        ({"DINOMED3D_STAGE1_EPOCHS": "-1"}, "'stage1_epochs' must not be negative"),
        ({"DINOMED3D_RATE_ADAPTERS": "nan"}, "'rate_adapters' must be positive, got nan"),
        ({"DINOMED3D_VAL_ITERATIONS_PER_EPOCH": "0"}, "at least 1"),
    ],
)
def test_impossible_recipes_are_refused(environ, message):
    with pytest.raises(UserError, match=message):
        recipe_from({}, environ)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"DINOMED3D_SLICES": "4"}, "must be odd"),
        ({"DINOMED3D_ENCODER_OVERRIDES": "[1]"}, "must be a JSON object"),
        ({"DINOMED3D_ENCODER": "resnet"}, "'encoder' must be one of"),
    ],
)
def test_impossible_network_settings_are_refused(environ, message):
    with pytest.raises(UserError, match=message):
        spec_from(NetworkSpec(), environ)


def test_recipes_of_another_version_are_refused():
    with pytest.raises(UserError, match="unknown recipe fields wheels"):
        recipe_from({"wheels": 4}, {})
    with pytest.raises(UserError, match="'warmup'"):
        Recipe(warmup=1.0)
