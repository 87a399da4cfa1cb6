"""nnU-Net's folders with a dataset of which only dataset.json and the fingerprint are real."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.nnunet_here import PoolHere

INTENSITY = {
    "max": 900.0,
    "mean": 100.0,
    "median": 90.0,
    "min": -50.0,
    "percentile_00_5": -20.0,
    "percentile_99_5": 300.0,
    "std": 40.0,
}
MakeDataset = Callable[..., Path]


@pytest.fixture
def make_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeDataset:
    """A function that writes dataset 902 and gives its folder in nnUNet_preprocessed."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    # nnU-Net starts a dozen processes to list the files of the cases
    monkeypatch.setattr("nnunetv2.utilities.utils.Pool", PoolHere)
    for variable in (
        "ENCODER",
        "ENCODER_OVERRIDES",
        "VOXELS_PER_TOKEN",
        "SLICES_PER_TOKEN",
        "SLICES",
        "COMPONENTS",
        "WEIGHTS",
    ):
        monkeypatch.delenv(f"DINOMED3D_{variable}", raising=False)

    def make(
        shape: tuple[int, ...] = (16, 256, 256),
        spacing: tuple[float, ...] = (5.0, 1.0, 1.0),
        *,
        cases: int = 30,
        channels: tuple[str, ...] = ("MRI",),
        labels: dict[str, Any] | None = None,
        intensity: dict[str, float] = INTENSITY,
        **fingerprint: Any,
    ) -> Path:
        raw = tmp_path / "raw" / "Dataset902_Plan"
        (raw / "imagesTr").mkdir(parents=True)
        (raw / "labelsTr").mkdir()
        for case in range(cases):
            for channel in range(len(channels)):
                (raw / "imagesTr" / f"c{case:02}_{channel:04}.nii.gz").touch()
            (raw / "labelsTr" / f"c{case:02}.nii.gz").touch()
        content = {
            "channel_names": {str(i): name for i, name in enumerate(channels)},
            "labels": labels or {"background": 0, "a": 1},
            "numTraining": cases,
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "SimpleITKIO",
        }
        if any(isinstance(value, list) for value in content["labels"].values()):
            content["regions_class_order"] = list(range(1, len(content["labels"])))
        (raw / "dataset.json").write_text(json.dumps(content))
        folder = tmp_path / "preprocessed" / "Dataset902_Plan"
        folder.mkdir(parents=True)
        found = {
            "shapes_after_crop": [list(shape)] * cases,
            "spacings": [list(spacing)] * cases,
            "median_relative_size_after_cropping": 1.0,
            "foreground_intensity_properties_per_channel": {
                str(i): intensity for i in range(len(channels))
            },
        }
        (folder / "dataset_fingerprint.json").write_text(json.dumps(found | fingerprint))
        return folder

    return make
