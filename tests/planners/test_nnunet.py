"""DinoMed3DPlanner on nnU-Net's own planning, from a fingerprint made by hand."""

import json
from pathlib import Path

import pytest

from dinomed3d.networks import NetworkSpec
from dinomed3d.training.plan import NETWORK


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    raw = tmp_path / "raw" / "Dataset902_Plan"
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    for case in range(30):
        (raw / "imagesTr" / f"c{case:02}_0000.nii.gz").touch()
        (raw / "labelsTr" / f"c{case:02}.nii.gz").touch()
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "a": 1},
        "numTraining": 30,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    (raw / "dataset.json").write_text(json.dumps(content))
    folder = tmp_path / "preprocessed" / "Dataset902_Plan"
    folder.mkdir(parents=True)
    intensity = dict.fromkeys(
        ("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 1.0
    )
    fingerprint = {
        "shapes_after_crop": [[16, 256, 256]] * 30,
        "spacings": [[5.0, 1.0, 1.0]] * 30,
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {"0": intensity},
    }
    (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    return folder


def test_plans_carry_our_network_and_stock_names(dataset):
    from planners.nnunet import DinoMed3DPlanner

    DinoMed3DPlanner(902).plan_experiment()
    plans = json.loads((dataset / "DinoMed3DPlans.json").read_text())
    assert plans["plans_name"] == "DinoMed3DPlans"
    assert plans["experiment_planner_used"] == "DinoMed3DPlanner"
    for name, slices in (("2d", 1), ("3d_fullres", 3)):
        configuration = plans["configurations"][name]
        assert configuration["preprocessor_name"] == "DefaultPreprocessor"
        assert configuration["architecture"]["network_class_name"] == NETWORK
        spec = NetworkSpec.from_arch_kwargs(configuration["architecture"]["arch_kwargs"])
        assert spec.slices == slices
    assert spec.depth_kernels[0] == 1  # 5 mm apart: no mixing across slices at full resolution
