"""`dinomed3d plan` and `dinomed3d explain`: tables, and what is wrong with a plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dinomed3d.cli.main import main
from dinomed3d.runtime.errors import UserError
from planners.explain import explain, explain_configuration, explanation_text
from planners.explain.device_speed import Speed, measure_speed
from planners.explain.loader_speed import LoaderSpeed, measure_loader
from tests.documented_keys import read_json
from tests.planners.conftest import MakeDataset

SPEED = Speed(products=1e12, convolutions=5e11, device="a machine")
LOADER = LoaderSpeed(seconds_per_voxel=1e-6, processes=12, cores=4)
LOADERS = {"I": LOADER, "II": LOADER}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Name -> content of each file of the planned dataset's folder; planning takes seconds, so it is done once."""
    return {}


@pytest.fixture
def planned(
    make_dataset: MakeDataset, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> Path:
    """A plan with its dataset.json, made by the command."""
    folder = make_dataset()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if files:
        return folder / "DinoMed3DPlans.json"
    assert main(["plan", "-d", "902", "-gpu_memory_target", "12", "--json"]) == 0
    found = read_json(capsys.readouterr().out)
    assert found["file"] == str(folder / "DinoMed3DPlans.json") and "DINOv2" in found["weights"]
    assert found["configurations"]["2d"]["target_gib"] == 12
    assert main(["plan", "-d", "902", "-gpu_memory_target", "12"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("DinoMed3DPlans for 12 GiB: 2d, 3d_fullres\n")
    assert "DINOMED3D_WEIGHTS is not set" in printed.out
    assert "Plans were saved to" in printed.err  # nnU-Net's own output is no result
    files.update((path.name, path.read_bytes()) for path in folder.iterdir() if path.is_file())
    return folder / "DinoMed3DPlans.json"


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return json.loads(path.read_text()), json.loads(path.with_name("dataset.json").read_text())


def test_explain_prints_reasons_components_memory_and_time(
    planned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def measure(patch: tuple[int, ...], spacing: tuple[float, ...], **more: Any) -> LoaderSpeed:
        measured.append((patch, spacing, more.get("slicewise", False)))
        return LOADER

    monkeypatch.setattr("planners.explain.measured_plan.measure_loader", measure)
    monkeypatch.setattr("planners.explain.measured_plan.measure_speed", lambda device: SPEED)
    assert main(["explain", str(planned), "--device", "cpu"]) == 0
    flat, thick = (1.0, 1.0), (5.0, 1.0, 1.0)
    assert measured == [  # of stage II, then of the slices of stage I
        ((256, 256), flat, False),
        ((256, 256), flat, True),
        ((16, 256, 256), thick, False),
        ((5, 256, 256), thick, True),
    ]
    printed = capsys.readouterr()
    assert printed.err.startswith("measuring") and "2d, 3d_fullres: about 6 s\n" in printed.err
    for word in ("2d: patches of 256 x 256", "3d_fullres: patches of 16 x 256 x 256", "nnU-Net's rule",
                 "encoder", "decoder", "saved MiB", "GiB in stage I,", "s per step in stage II"):  # fmt: skip
        assert word in printed.out
    assert max(len(line) for line in printed.out.splitlines()) < 180
    assert main(["explain", str(planned), "-c", "2d", "--device", "cpu", "--json"]) == 0
    found = read_json(capsys.readouterr().out)["configurations"]
    assert list(found) == ["2d"] and set(found["2d"]["stages"]) == {"I", "II"}
    hours = found["2d"]["training_hours"]
    assert f"; {hours:.2g} h for " in printed.out or hours >= 72


def test_numbers_are_those_of_the_plan(planned: Path) -> None:
    plans, dataset = read(planned)
    found = explain_configuration(plans, dataset, "3d_fullres")
    configuration = plans["configurations"]["3d_fullres"]
    assert list(found.patch) == configuration["patch_size"]
    assert found.slices == configuration["dinomed3d_recipe"]["stage1_slices"]
    text = explanation_text(found, SPEED, LOADERS)
    seconds = sum(
        (p.flops + p.backward_flops)
        / (5e11 if n in ("neck", "detail", "fusion", "decoder") else 1e12)
        for n, p in found.two.components.items()
    )
    assert f"{seconds:.0f} s per step in stage II" in text
    assert f"{found.two.peak / 2**30:.1f} GiB in stage II" in text
    assert "NOTE" not in text


def test_a_batch_edited_beyond_the_memory_is_found(planned: Path) -> None:
    plans, dataset = read(planned)
    plans["configurations"]["3d_fullres"]["batch_size"] = 20
    text = explanation_text(explain_configuration(plans, dataset, "3d_fullres"), SPEED, LOADERS)
    assert "NOTE" in text and "12 GiB" in text


def test_settings_change_what_is_explained_as_they_change_the_training(
    planned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans, dataset = read(planned)
    before = explain_configuration(plans, dataset, "3d_fullres")
    monkeypatch.setenv("DINOMED3D_COMPONENTS", "detail")
    after = explain_configuration(plans, dataset, "3d_fullres")
    text = explanation_text(after, SPEED, LOADERS)
    assert after.two.peak < before.two.peak
    assert "Changed by DINOMED3D_COMPONENTS" in text
    assert "for 450 epochs of 250 steps" in text and "stage I (" not in text


def test_a_stage_one_that_is_left_out_takes_no_memory(
    planned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans, dataset = read(planned)
    recipe = plans["configurations"]["3d_fullres"]["dinomed3d_recipe"]
    for bound in ("stage1_slices", "stage1_tokens"):
        recipe[bound] *= 20  # so many that stage I takes more than stage II
    both = explain_configuration(plans, dataset, "3d_fullres")
    monkeypatch.setenv("DINOMED3D_STAGE1_EPOCHS", "0")
    alone = explain_configuration(plans, dataset, "3d_fullres")
    assert alone.two.peak == both.two.peak and alone.needs_gib < both.needs_gib
    assert "GiB in stage I," not in explanation_text(alone, SPEED, LOADERS)


def test_a_stock_plan_is_explained_as_our_trainer_uses_it(planned: Path) -> None:
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )

    ExperimentPlanner(902).plan_experiment()
    plans, dataset = read(planned.with_name("nnUNetPlans.json"))
    found = explain_configuration(plans, dataset, "3d_fullres")
    assert not found.ours and found.target_gib is None
    assert "not made by DinoMed3DPlanner" in explanation_text(found, SPEED, LOADERS)


# What a plan must be is tested with `check_configuration`, `NetworkSpec` and `recipe_from`; here, that
# explaining and training ask all three, and about the patch.
@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"patch_size": [16, 256]}, "'patch_size'"),
        ({"patch_size": [1, 4, 4]}, "patch"),
        ({"dinomed3d_recipe": {"stage9": 1}}, "stage9"),
        ({"architecture": {"colour": 1}}, "colour"),
        ({"inherits_from": "nowhere"}, "nowhere"),
    ],
)
def test_an_edited_plan_is_refused_by_explain_and_by_the_trainer(
    planned: Path, changes: dict[str, Any], names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dinomed3d.training.trainer import DinoMed3DTrainer

    plans, dataset = read(planned)
    full = plans["configurations"]["3d_fullres"]
    full["architecture"]["arch_kwargs"] |= changes.pop("architecture", {})
    full |= changes
    planned.write_text(json.dumps(plans))
    with pytest.raises(UserError, match=names):
        explain(planned, "3d_fullres", torch.device("cpu"))
    if "inherits_from" in changes:
        return  # nnU-Net's own message, before the trainer is asked
    monkeypatch.setenv("DINOMED3D_WEIGHTS", "none")
    with pytest.raises(UserError, match=names):
        DinoMed3DTrainer(
            plans | {"continue_training": False}, "3d_fullres", 0, dataset, torch.device("cpu")
        )
    assert not list((planned.parents[2] / "results").glob("*"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("memory_target_gib", "lots"), ("memory_target_gib", -8), ("decisions", "all fine"),
     ("decisions", [{"what": "encoder"}])],
)  # fmt: skip
def test_notes_of_the_planner_edited_into_nonsense_are_refused(
    planned: Path, key: str, value: Any
) -> None:
    plans, dataset = read(planned)
    plans["configurations"]["3d_fullres"][f"dinomed3d_{key}"] = value
    with pytest.raises(UserError, match=f"dinomed3d_{key}"):
        explain_configuration(plans, dataset, "3d_fullres")


def test_what_is_no_plan_is_refused_in_one_line(
    planned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.json").write_text('{"configurations": {')
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "dataset.json").write_text("{}")
    for words, says in (
        ([str(tmp_path / "none.json")], "none.json"),
        ([str(tmp_path / "cut.json")], "cut.json"),
        ([str(planned.parent)], f"({planned.name})"),
        ([str(tmp_path / "other.json")], "other.json"),
        ([str(planned), "-c", "4d"], "-c 4d: "),
    ):
        assert main(["explain", *words]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1 and says in printed.err
    planned.with_name("dataset.json").unlink()
    assert main(["explain", str(planned)]) == 2
    assert "dataset.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-d", "902", "-gpu_memory_target", "0.3"], "-gpu_memory_target"),
        (["-d", "903"], "'903'"),
        (
            ["-d", "902", "-overwrite_target_spacing", "0", "1", "1"],
            "-overwrite_target_spacing",
        ),
    ],
)
def test_errors_of_plan_are_one_line(
    make_dataset: MakeDataset, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    make_dataset()
    assert main(["plan", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if line.startswith("dinomed3d plan: ")]
    assert says in line


def test_plan_wants_nnunets_folders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("raw", "preprocessed"):
        monkeypatch.delenv(f"nnUNet_{name}", raising=False)
    assert main(["plan", "-d", "902"]) == 2
    assert "nnUNet_raw and nnUNet_preprocessed" in capsys.readouterr().err


def test_a_loader_slower_than_the_device_is_found(planned: Path) -> None:
    """Two patches of a million voxels are two seconds of a core; four work at a time, of twelve."""
    assert LOADER.note(2_000_000, 0.6) == ""  # half a second
    assert "nnUNet_n_proc_DA=20 " in LOADER.note(2_000_000, 0.1)
    assert replace(LOADER, processes=0).workers == 1  # in the main process
    plans, dataset = read(planned)
    found = explain_configuration(plans, dataset, "3d_fullres")
    voxels = found.batch * 16 * 256 * 256
    slices = found.slices * 5 * 256 * 256  # five slices are loaded for one, because of the blur
    text = explanation_text(found, SPEED, LOADERS)
    assert f"augmentation, of one core: {slices / 1e6:.2g} s per step in stage I" in text
    assert f"{voxels / 1e6:.2g} s per step in stage II; 4 cores here" in text
    assert "NOTE: in stage" not in text
    text = explanation_text(found, replace(SPEED, products=1e15, convolutions=1e15), LOADERS)
    assert "NOTE: in stage I the loader" in text and "NOTE: in stage II the loader" in text


@pytest.mark.parametrize("patch", [(5, 400, 400), (24, 20)])
def test_augmentation_is_measured(patch: tuple[int, ...]) -> None:
    threads = torch.get_num_threads()
    loader = measure_loader(patch, [1.0] * len(patch), channels=2, seconds=0.02)
    assert 1e-9 < loader.seconds_per_voxel < 1e-2 and loader.cores >= 1
    assert torch.get_num_threads() == threads


def test_speed_is_measured() -> None:
    speed = measure_speed(torch.device("cpu"), seconds=0.02)
    assert 1e8 < speed.products < 1e16 and 1e8 < speed.convolutions < 1e16
    assert speed.device == "cpu"
