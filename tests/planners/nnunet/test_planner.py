"""DinoMed3DPlanner on nnU-Net's own planning, from fingerprints made by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dinomed3d.networks import NetworkSpec
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.settings.environment import recipe_from
from dinomed3d.training.settings.nnunet_plan import NETWORK
from planners.budget import Budget
from planners.cost import stage_two
from planners.cost.encoder_sizes import ENCODERS
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
        assert configuration["data_identifier"] == f"nnUNetPlans_{name}"  # preprocessed alike
        spec = spec_of(configuration)
        assert spec.slices == slices
        assert len(configuration["patch_size"]) == axes
        spec.check_patch(configuration["patch_size"])
        recipe = recipe_from(configuration["dinomed3d_recipe"], {})
        assert (recipe.stage1_epochs, recipe.stage2_epochs) == (50, 450)
        assert configuration["dinomed3d_memory_target_gib"] == 8
        rows = configuration["dinomed3d_decisions"]
        assert all(row["what"] and row["value"] and row["why"] for row in rows)
        assert {"encoder", "patch", "batch", "CNN", "tokens"} <= {row["what"] for row in rows}
    assert spec.cnn.kernels[0] == (
        1,
        3,
        3,
    )  # 5 mm apart: no mixing across slices at full resolution


@pytest.mark.parametrize("memory", [8, 24])
def test_the_cnn_is_the_one_of_nnunets_own_plan(make_dataset: MakeDataset, memory: float) -> None:
    """The same patch, batch and levels as ExperimentPlanner's, whose network is built with its weights."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )

    from planners.nnunet.plan_entries import cnn_plan

    folder = make_dataset()
    ours = plan(folder, memory)["configurations"]
    ExperimentPlanner(902, memory).plan_experiment()
    stock = json.loads((folder / "nnUNetPlans.json").read_text())["configurations"]
    assert ours.keys() == stock.keys()
    for name, configuration in ours.items():
        found = cnn_plan(stock[name])
        assert spec_of(configuration).cnn == found.cnn
        assert configuration["patch_size"] == list(found.patch)
        assert configuration["batch_size"] == found.batch
        same = {"spacing", "median_image_size_in_voxels", "normalization_schemes", "batch_dice"}
        assert {key: configuration[key] for key in same} == {key: stock[name][key] for key in same}


def test_the_table_is_printed(
    make_dataset: MakeDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(make_dataset())
    printed = capsys.readouterr().out
    table = printed[printed.index("DinoMed3DPlans for 8 GiB: 2d, 3d_fullres\n") :]
    assert "DinoMed3DPlans for 8 GiB: 3d_fullres\n" in table
    assert table.count("taps ") == 1  # what all share is found once
    assert table.count("patch ") == 2
    assert "DINOMED3D_WEIGHTS is not set" in table  # and what training will ask for


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
    assert full["median_image_size_in_voxels"][-2:] == [512, 512]  # 256 voxels of 1 mm
    assert full["dinomed3d_memory_target_gib"] == 24
    small, large = (plan(folder, memory)["configurations"]["3d_fullres"] for memory in (3, 24))
    assert math.prod(small["patch_size"]) < math.prod(large["patch_size"])


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
    # nnU-Net's rule: a patch holds a quarter of the volume
    share = math.prod(low["patch_size"]) / math.prod(low["median_image_size_in_voxels"])
    whole = math.prod(full["patch_size"]) / math.prod(full["median_image_size_in_voxels"])
    assert share > 0.24 > whole
    assert cascade["patch_size"] == full["patch_size"]
    assert spec_of(low).cascade_channels == spec_of(full).cascade_channels == 0
    assert spec_of(cascade).cascade_channels == 2
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
    from planners.explain import explain_configuration

    folder = make_dataset(labels=labels)
    plans, dataset = plan(folder), json.loads((folder / "dataset.json").read_text())
    found = explain_configuration(plans, dataset, "3d_fullres")
    assert found.classes == 3
    assert found.two.peak <= Budget(memory_gib=8).memory


def test_settings_in_the_environment_are_kept(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DINOMED3D_ENCODER", "vit_base_patch14_reg4_dinov2")
    monkeypatch.setenv("DINOMED3D_ENCODER_OVERRIDES", '{"depth": 4}')
    monkeypatch.setenv("DINOMED3D_VOXELS_PER_TOKEN", "16")
    monkeypatch.setenv("DINOMED3D_SLICES_PER_TOKEN", "3")
    monkeypatch.setenv("DINOMED3D_SLICES", "5")
    full = plan(make_dataset())["configurations"]["3d_fullres"]
    spec = spec_of(full)
    assert spec.encoder == "vit_base_patch14_reg4_dinov2"
    assert spec.encoder_overrides == {"depth": 4}
    assert (spec.voxels_per_token, spec.slices_per_token, spec.slices) == (16, 3, 5)
    why = {row["what"]: row["why"] for row in full["dinomed3d_decisions"]}
    assert "set by the user" in why["encoder"] and "set by the user" in why["tokens"]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("vit_base_patch16_dinov3", "blocks.{}.mlp.fc1.weight"),
        ("vit_small_plus_patch16_dinov3", "backbone.blocks.{}.mlp.w1.weight"),
        ("vit_small_patch16_dinov3", "model.layer.{}.mlp.up_proj.weight"),
        ("vit_large_patch14_reg4_dinov2", "blocks.{}.mlp.fc1.weight"),
        ("vit_large_patch14_dinov2", "blocks.{}.mlp.fc1.weight"),
    ],
)
def test_the_given_weights_decide_the_encoder(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, keys: str
) -> None:
    from safetensors.torch import save_file

    size = ENCODERS[name]
    state = {keys.format(i): torch.zeros(1) for i in range(size.depth)}
    state["cls_token"] = torch.zeros(1, 1, size.width)
    state["patch_embed.proj.weight"] = torch.zeros(1, 1, size.patch, size.patch)
    if size.prefix > 1:
        state["register_tokens"] = torch.zeros(1, size.prefix - 1, size.width)
    save_file(state, tmp_path / "weights.safetensors")
    monkeypatch.setenv("DINOMED3D_WEIGHTS", str(tmp_path / "weights.safetensors"))
    for configuration in plan(make_dataset(), 24)["configurations"].values():
        assert spec_of(configuration).encoder == name
        why = {row["what"]: row["why"] for row in configuration["dinomed3d_decisions"]}
        assert "the weights given" in why["encoder"]


def test_weights_that_cannot_be_used_are_found_before_planning(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    folder = make_dataset()
    monkeypatch.setenv("DINOMED3D_WEIGHTS", str(tmp_path / "none.pth"))
    with pytest.raises(UserError, match="DINOMED3D_WEIGHTS"):
        plan(folder)
    save_file({"cls_token": torch.zeros(1, 1, 77)}, tmp_path / "odd.safetensors")
    monkeypatch.setenv("DINOMED3D_WEIGHTS", str(tmp_path / "odd.safetensors"))
    with pytest.raises(UserError, match="odd.safetensors.*DINOMED3D_ENCODER"):
        plan(folder)
    monkeypatch.setenv("DINOMED3D_ENCODER", "vit_small_patch16_dinov3")  # the user knows better
    plan(folder)


def test_what_an_earlier_planning_had_and_this_one_has_not_is_removed(
    make_dataset: MakeDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_dataset((1000, 256, 256), (1.0, 0.8, 0.8))
    assert "3d_lowres" in plan(folder)["configurations"]
    coarse = plan(folder, overwrite_target_spacing=[10.0, 2.0, 2.0])
    assert set(coarse["configurations"]) == {"2d", "3d_fullres"}
    assert "3d_cascade_fullres, 3d_lowres of an earlier plan are removed" in capsys.readouterr().out


@pytest.mark.parametrize("shape", [(1, 3, 4), (1, 1, 1), (1, 2, 3), (3, 6, 5)])
@pytest.mark.parametrize("token", ["1", "4", ""])
def test_slices_of_a_few_voxels_can_be_planned_and_trained(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], token: str
) -> None:
    monkeypatch.setenv("DINOMED3D_VOXELS_PER_TOKEN", token)
    for configuration in plan(make_dataset(shape))["configurations"].values():
        spec_of(configuration).check_patch(configuration["patch_size"])


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
        ({"spacing": (float("nan"), 1.0, 1.0)}, "spacing"),
        ({"shape": (0, 256, 256)}, r"shape \[0, 256, 256\] of training case number 1"),
        ({"spacings": []}, "spacing"),
        ({"labels": {"background": 0}}, "'labels'"),
        ({"labels": {"background": 0, "ignore": 1}}, "'labels'"),
        ({"labels": {"0": "background", "1": "a"}}, "wrong way round"),
        ({"channels": ("CT",), "intensity": INTENSITY | {"mean": float("nan")}}, "labelsTr"),
    ],
)
def test_datasets_that_cannot_be_planned_are_refused(
    make_dataset: MakeDataset, settings: dict[str, Any], says: str
) -> None:
    folder = make_dataset(**settings)
    with pytest.raises(UserError, match=says):
        plan(folder)
    assert not (folder / "DinoMed3DPlans.json").exists()


def test_settings_are_checked_before_planning(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_dataset()
    for variable, value in (
        ("ENCODER", "vit_enormous"),
        ("ENCODER_OVERRIDES", '{"swiglu_mlp": true}'),
    ):
        with monkeypatch.context() as patch, pytest.raises(UserError, match=f"(?i){variable}"):
            patch.setenv(f"DINOMED3D_{variable}", value)
            plan(folder)


def test_a_memory_too_small_for_any_encoder_says_what_would_do(make_dataset: MakeDataset) -> None:
    folder = make_dataset()
    with pytest.raises(UserError, match="-gpu_memory_target") as e:
        plan(folder, 0.6)
    need = float(str(e.value).split(" need ")[1].split()[0])
    assert plan(folder, need)["configurations"]["3d_fullres"]["batch_size"] == 2
    with pytest.raises(UserError, match="-gpu_memory_target"):
        plan(folder, -1)
