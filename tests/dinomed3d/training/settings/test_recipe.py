"""The recipe: schedule by hand, what the environment may change, and what it may not."""

import math
from dataclasses import asdict, replace

import pytest

from dinomed3d.networks import NetworkSpec
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.settings.environment import recipe_from, resumed_recipe, spec_from
from dinomed3d.training.settings.recipe import Recipe


def test_rates_rise_then_fall_as_half_a_cosine_in_each_stage():
    recipe = Recipe(stage1_epochs=1, stage2_epochs=2, iterations_per_epoch=10, warmup=0.2)
    first = [recipe.rate_factor(0, i) for i in range(10)]
    assert first[:3] == [1 / 3, 2 / 3, 1.0]  # 2 of 10 steps warm up
    assert first[6] == 0.5 and first[9] == pytest.approx(0.5 * (1 + math.cos(7 / 8 * math.pi)))
    second = [recipe.rate_factor(1 + i // 10, i % 10) for i in range(20)]
    assert second[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert second[12] == 0.5 and all(0 < rate <= 1 for rate in second)


def test_a_stage_one_that_has_lasted_longer_than_asked_ends_where_it_is():
    asked = Recipe(stage1_epochs=4, stage2_epochs=40)
    assert asked.resumed_in(1, epoch=8) == replace(asked, stage1_epochs=8)
    assert asked.resumed_in(1, epoch=4) == asked.resumed_in(1, epoch=3) == asked
    assert asked.resumed_in(2, epoch=8) == asked


def test_stage_one_samples_within_both_bounds():
    recipe = Recipe(stage1_slices=96, stage1_tokens=16384)
    assert [recipe.slices_per_step(t) for t in (35, 170, 171, 1024, 65536)] == [96, 96, 95, 16, 2]


def test_more_slices_than_planned_may_have_more_tokens():
    plan = {"stage1_slices": 16, "stage1_tokens": 1000}
    for slices, tokens in (("8", 1000), ("16", 1000), ("24", 1500), ("17", 1063)):
        found = recipe_from(plan, {"DINOMED3D_STAGE1_SLICES": slices})
        assert (found.stage1_slices, found.stage1_tokens) == (int(slices), tokens)


def test_the_slices_of_a_step_are_shared_by_processes():
    recipe = Recipe(stage1_slices=96, stage1_tokens=16384)
    assert [recipe.slices_per_step(t, processes=4) for t in (35, 1024)] == [24, 16]


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


def test_a_random_encoder_learns_faster_unless_a_rate_is_set():
    none = {"DINOMED3D_WEIGHTS": "none"}
    assert recipe_from({}, none).rate_encoder == 10 * Recipe().rate_encoder
    assert recipe_from({}, none | {"DINOMED3D_RATE_ENCODER": "0.25"}).rate_encoder == 0.25
    # a plan's rate is for pretrained weights
    assert recipe_from({"rate_encoder": 0.125}, none).rate_encoder == 1.25
    assert recipe_from({"rate_encoder": 0.125}, {}).rate_encoder == 0.125
    # a checkpoint's recipe has this rate already
    kept = asdict(recipe_from({}, none))
    assert recipe_from(kept, none).rate_encoder == kept["rate_encoder"]


def test_a_start_from_a_model_leaves_stage_one_out_unless_it_is_set():
    start = {"DINOMED3D_START_FROM": "model.pth", "DINOMED3D_WEIGHTS": "none"}
    for plan, environ in (({"stage1_epochs": 7}, start), ({"start_from": "model.pth"}, {})):
        found = recipe_from(plan, environ)
        assert (found.start_from, found.stage1_epochs) == ("model.pth", 0)
        assert found.rate_encoder == Recipe().rate_encoder  # it is not random
    asked = recipe_from({}, start | {"DINOMED3D_STAGE1_EPOCHS": "3"})
    assert asked.stage1_epochs == 3
    assert resumed_recipe(asdict(asked), {}) == asked  # resuming needs no variable


def test_resuming_may_change_lengths_and_rates_but_not_the_start():
    stored = asdict(Recipe(weights="some/file.pth", start_from="none"))
    environ = {"DINOMED3D_WEIGHTS": "none", "DINOMED3D_START_FROM": "model.pth"}
    found = resumed_recipe(stored, environ | {"DINOMED3D_STAGE2_EPOCHS": "9"})
    assert found == Recipe(weights="some/file.pth", stage2_epochs=9)


def test_environment_changes_the_network():
    changed = spec_from(
        NetworkSpec(),
        {
            "DINOMED3D_ENCODER": "vit_base_patch16_dinov3",
            "DINOMED3D_ENCODER_OVERRIDES": '{"depth": 2}',
            "DINOMED3D_COMPONENTS": "encoder, detail",
            "DINOMED3D_SLICES": "5",
        },
    )
    assert (changed.encoder, changed.encoder_overrides) == ("vit_base_patch16_dinov3", {"depth": 2})
    assert (changed.components, changed.slices) == (("encoder", "detail"), 5)


@pytest.mark.parametrize(
    ("plan", "environ", "names"),
    [
        ({"stage1_epochs": "fifty"}, {}, "'stage1_epochs'"),
        ({"stage1_epochs": 1.5}, {}, "'stage1_epochs'"),
        ({"clip": None}, {}, "'clip'"),
        ({"weights": 3}, {}, "'weights'"),
        ({"activation_checkpointing": "yes"}, {}, "'activation_checkpointing'"),
        ({"wheels": 4}, {}, "wheels"),  # of another version
        ({"warmup": 1.0}, {}, "'warmup'"),
        ({"weight_decay": -1.0}, {}, "'weight_decay'"),
        ({}, {"CHECKPOINT_MINUTES": "-1"}, "'checkpoint_minutes'"),
        ({}, {"STAGE1_EPOCHS": "many"}, "DINOMED3D_STAGE1_EPOCHS .*'many'"),
        ({}, {"RATE_DECODER": "fast"}, "DINOMED3D_RATE_DECODER .*'fast'"),
        ({}, {"STAGE2_EPOCHS": "0"}, "'stage2_epochs'"),
        ({}, {"STAGE1_EPOCHS": "-1"}, "'stage1_epochs'"),
        ({}, {"RATE_ADAPTERS": "nan"}, "'rate_adapters'"),
        ({}, {"VAL_ITERATIONS_PER_EPOCH": "0"}, "'val_iterations_per_epoch'"),
    ],
)
def test_impossible_recipes_are_refused(plan, environ, names):
    with pytest.raises(UserError, match=names):
        recipe_from(plan, {f"DINOMED3D_{name}": value for name, value in environ.items()})


def test_network_settings_of_a_wrong_type_are_refused():
    with pytest.raises(UserError, match="DINOMED3D_ENCODER_OVERRIDES"):
        spec_from(NetworkSpec(), {"DINOMED3D_ENCODER_OVERRIDES": "[1]"})
