"""DinoMed3DPlanner on nnU-Net's own planning, from fingerprints made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dinomed3d.errors import UserError
from dinomed3d.networks import NetworkSpec
from dinomed3d.training.plan import NETWORK
from dinomed3d.training.recipe import recipe_from
from planners.cost import stage_two
from planners.sizing import Budget
from tests.planners.conftest import INTENSITY, MakeDataset


def plan(folder: Path, memory: float = 8, **settings: Any) -> dict[str, Any]:
    from planners.nnunet import DinoMed3DPlanner

    name = settings.get("plans_name", "DinoMed3DPlans")
    DinoMed3DPlanner(902, memory, **settings).plan_experiment()
    plans: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return plans


def spec_of(configuration: dict[str, Any]) -> NetworkSpec:
    assert configuration["architecture"]["network_class_name"] == NETWORK
    return NetworkSpec.from_arch_kwargs(configuration["architecture"]["arch_kwargs"])


def test_plans_carry_network_recipe_reasons_and_stock_names(make_dataset: MakeDataset) -> None:
    plans = plan(make_dataset())
    assert plans["plans_name"] == "DinoMed3DPlans"
    assert plans["experiment_planner_used"] == "DinoMed3DPlanner"
    assert set(plans["configurations"]) == {"2d", "3d_fullres"}
    for name, slices, axes in (("2d", 1, 2), ("3d_fullres", 3, 3)):
        configuration = plans["configurations"][name]
        assert configuration["preprocessor_name"] == "DefaultPreprocessor"
        assert configuration["resampling_fn_data"] == "resample_data_or_seg_to_shape"
        assert configuration["data_identifier"] == f"DinoMed3DPlans_{name}"
        spec = spec_of(configuration)
        assert spec.slices == slices
        assert len(configuration["patch_size"]) == axes
        spec.check_patch(configuration["patch_size"])
        recipe = recipe_from(configuration["dinomed3d_recipe"], {})
        assert (recipe.stage1_epochs, recipe.stage2_epochs) == (50, 450)
        assert configuration["dinomed3d_memory_target_gib"] == 8
        rows = configuration["dinomed3d_decisions"]
        assert all(row["what"] and row["value"] and row["why"] for row in rows)
        assert {"encoder", "patch", "batch", "voxels per token"} <= {row["what"] for row in rows}
    assert spec.depth_kernels[0] == 1  # 5 mm apart: no mixing across slices at full resolution


def test_the_table_is_printed(
    make_dataset: MakeDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(make_dataset())
    printed = capsys.readouterr().out
    assert "DinoMed3DPlans, 3d_fullres, for 8 GiB:" in printed
    assert "whole slices" in printed


def test_stock_flags_keep_their_meaning(make_dataset: MakeDataset) -> None:
    folder = make_dataset()
    plans = plan(
        folder,
        24,
        plans_name="Mine",
        overwrite_target_spacing=[2.5, 0.5, 0.5],
        preprocessor_name="DefaultPreprocessor",
    )
    full = plans["configurations"]["3d_fullres"]
    assert plans["plans_name"] == "Mine" and full["data_identifier"] == "Mine_3d_fullres"
    assert full["spacing"] == [2.5, 0.5, 0.5]
    assert full["patch_size"][-2:] == [512, 512]  # 256 voxels of 1 mm
    assert full["dinomed3d_memory_target_gib"] == 24
    small, large = (plan(folder, memory)["configurations"]["3d_fullres"] for memory in (6, 24))
    assert (spec_of(small).encoder, spec_of(large).encoder) == (
        "vit_small_patch16_dinov3",
        "vit_base_patch16_dinov3",
    )


def test_the_slice_axis_is_the_one_of_largest_spacing(make_dataset: MakeDataset) -> None:
    plans = plan(make_dataset((256, 250, 16), (1.0, 1.0, 5.0)))
    assert plans["transpose_forward"] == [2, 0, 1]
    assert plans["configurations"]["3d_fullres"]["patch_size"] == [16, 256, 256]


def test_a_single_slice_is_planned_in_2d_alone(make_dataset: MakeDataset) -> None:
    assert set(plan(make_dataset((1, 256, 250)))["configurations"]) == {"2d"}


def test_large_volumes_get_a_coarse_stage_and_a_cascade_that_reads_its_labels(
    make_dataset: MakeDataset,
) -> None:
    labels = {"background": 0, "a": 1, "b": 2}
    plans = plan(make_dataset((500, 512, 512), (1.0, 0.8, 0.8), labels=labels, channels=("CT",)))
    low, full, cascade = (
        plans["configurations"][f"3d_{n}"] for n in ("lowres", "fullres", "cascade_fullres")
    )
    assert low["next_stage"] == "3d_cascade_fullres"
    assert cascade["inherits_from"] == "3d_fullres" and cascade["previous_stage"] == "3d_lowres"
    # whole slices of an eighth of the body
    share = low["patch_size"][0] / low["median_image_size_in_voxels"][0]
    assert 0.12 < share < 0.2
    assert spec_of(low).prior_channels == spec_of(full).prior_channels == 0
    assert spec_of(cascade).prior_channels == 2
    for configuration, channels in ((low, 1), (full, 1), (cascade, 3)):
        cost = stage_two(
            spec_of(configuration),
            configuration["patch_size"],
            batch=configuration["batch_size"],
            channels=channels,
            classes=3,
            checkpointing=configuration["dinomed3d_recipe"]["activation_checkpointing"],
        )
        assert cost.peak <= Budget(memory_gib=8).memory


def test_regions_count_as_outputs(make_dataset: MakeDataset) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    from planners.nnunet import DinoMed3DPlanner

    make_dataset(labels=labels)
    planner = DinoMed3DPlanner(902)
    assert planner.labels.num_segmentation_heads == 3
    planner.plan_experiment()


def test_settings_in_the_environment_are_kept(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOMED3D_ENCODER", "vit_base_patch14_reg4_dinov2")
    monkeypatch.setenv("DINOMED3D_ENCODER_OVERRIDES", '{"depth": 4}')
    monkeypatch.setenv("DINOMED3D_VOXELS_PER_TOKEN", "16")
    monkeypatch.setenv("DINOMED3D_SLICES", "5")
    full = plan(make_dataset())["configurations"]["3d_fullres"]
    spec = spec_of(full)
    assert spec.encoder == "vit_base_patch14_reg4_dinov2"
    assert spec.encoder_overrides == {"depth": 4}
    assert (spec.voxels_per_token, spec.slices) == (16, 5)
    why = {row["what"]: row["why"] for row in full["dinomed3d_decisions"]}
    assert why["encoder"] == "asked for" and why["voxels per token"].startswith("asked for")


def test_configurations_that_a_user_added_are_kept(make_dataset: MakeDataset) -> None:
    folder = make_dataset()
    plans = plan(folder)
    mine = {"inherits_from": "3d_fullres", "batch_size": 3}
    plans["configurations"]["3d_mine"] = mine
    (folder / "DinoMed3DPlans.json").write_text(json.dumps(plans))
    assert plan(folder)["configurations"]["3d_mine"] == mine


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"spacing": (0.0, 1.0, 1.0)}, r"spacing \[0.0, 1.0, 1.0\] of training case number 1"),
        ({"spacing": (float("nan"), 1.0, 1.0)}, "spacing .* must be three positive numbers"),
        ({"shape": (0, 256, 256)}, r"shape \[0, 256, 256\] of training case number 1"),
        ({"spacings": []}, "0 spacings and 30 shapes"),
        ({"labels": {"background": 0}}, "no foreground"),
        ({"labels": {"background": 0, "ignore": 1}}, "no foreground"),
        (
            {"channels": ("CT",), "intensity": INTENSITY | {"mean": float("nan")}},
            "no training label shows a foreground voxel",
        ),
    ],
)
def test_datasets_that_cannot_be_planned_are_refused(
    make_dataset: MakeDataset, settings: dict[str, Any], says: str
) -> None:
    folder = make_dataset(**settings)
    with pytest.raises(UserError, match=says):
        plan(folder)
    assert not (folder / "DinoMed3DPlans.json").exists()


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("ENCODER", "vit_enormous", "vit_enormous"),
        ("VOXELS_PER_TOKEN", "6", "power of two"),
        ("SLICES", "2", "odd"),
        ("ENCODER_OVERRIDES", '{"embed_dim": "wide"}', "embed_dim"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    folder = make_dataset()
    monkeypatch.setenv(f"DINOMED3D_{variable}", value)
    with pytest.raises(UserError, match=says):
        plan(folder)


def test_a_memory_too_small_for_any_encoder_says_what_would_do(make_dataset: MakeDataset) -> None:
    folder = make_dataset()
    with pytest.raises(
        UserError, match=r"-gpu_memory_target 0.6 .* too small: .* need ([\d.]+)"
    ) as e:
        plan(folder, 0.6)
    need = float(str(e.value).split(" need ")[1].split()[0])
    assert plan(folder, need + 0.1)["configurations"]["3d_fullres"]["batch_size"] == 2
    with pytest.raises(UserError, match="positive"):
        plan(folder, -1)
