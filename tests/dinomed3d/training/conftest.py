"""A preprocessed nnU-Net dataset of a few tiny random cases, made without nnU-Net's process pools."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import ROOT

SHAPE = (7, 22, 18)
CASES = [f"case_{i}" for i in range(6)]


def configuration(name: str, patch: list[int], spacing: list[float]) -> dict:
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    dim = len(patch)
    return {
        "data_identifier": f"nnUNetPlans_{name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch,
        "median_image_size_in_voxels": list(SHAPE[-dim:]),
        "spacing": spacing,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": resampling | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling | {"order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "features_per_stage": [4, 6, 8],
                "kernel_sizes": [[3] * dim] * 3,
                "strides": [[1] * dim, [1, 2, 2][-dim:], [2] * dim],
                "n_conv_per_stage": [1, 1, 1],
                "n_conv_per_stage_decoder": [1, 1],
            },
            "_kw_requires_import": [],
        },
        "batch_dice": False,
    }


def plans() -> dict:
    return {
        "dataset_name": "Dataset901_Tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.0, 1.0, 1.0],
        "original_median_shape_after_transp": list(SHAPE),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": configuration("2d", [20, 16], [1.0, 1.0]),
            "3d_fullres": configuration("3d_fullres", [6, 20, 16], [2.0, 1.0, 1.0]),
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {},
        "continue_training": False,
    }


SETTINGS = {
    "WEIGHTS": "none",
    "ENCODER_OVERRIDES": '{"embed_dim": 24, "depth": 2, "num_heads": 2, "init_values": 1.0}',
    "STAGE1_EPOCHS": "2",
    "STAGE2_EPOCHS": "2",
    "ITERATIONS_PER_EPOCH": "2",
    "VAL_ITERATIONS_PER_EPOCH": "1",
}
LABELS = {"background": 0, "a": 1, "b": 2}
REGIONS = {"background": 0, "whole": [1, 2], "b": 2}


def dataset_json(labels: dict = LABELS) -> dict:
    dataset = {
        "channel_names": {"0": "MRI"},
        "labels": labels,
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
    }
    return dataset | ({"regions_class_order": [1, 2]} if labels == REGIONS else {})


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Make epochs short, in this process."""
    from nnunetv2.training.logging.nnunet_logger import LocalLogger

    patch.setattr(LocalLogger, "plot_progress_png", lambda self, folder: None)  # 3 s a picture


@pytest.fixture
def nnunet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nnU-Net's folders with a tiny preprocessed dataset, and settings for tiny, short training."""
    prepare(tmp_path, monkeypatch)
    return tmp_path


def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the dataset, point nnU-Net at it, and set what makes training short."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    shims = ROOT / "dinomed3d" / "shims"
    monkeypatch.setenv("nnUNet_extTrainer", str(shims))  # where the package itself is not installed
    base = tmp_path / "preprocessed" / "Dataset901_Tiny"
    rng = np.random.default_rng(0)
    for name in ("2d", "3d_fullres"):
        folder = base / f"nnUNetPlans_{name}"
        folder.mkdir(parents=True)
        for case in CASES:
            segmentation = np.zeros((1, *SHAPE), np.int16)
            segmentation[:, 2:5, 5:15, 4:12] = 1
            segmentation[:, 3:5, 8:12, 6:9] = 2
            data = segmentation.astype(np.float32) + 0.3 * rng.standard_normal(
                (1, *SHAPE), np.float32
            )
            places = {c: np.argwhere(segmentation == c) for c in (1, 2)}
            places |= {(1, 2): np.argwhere(segmentation > 0)}
            places[(-1, 0, 1, 2)] = np.argwhere(segmentation >= 0)  # annotated, for an ignore label
            properties = {"class_locations": places, "spacing": [2.0, 1.0, 1.0]}
            properties["shape_after_cropping_and_before_resampling"] = SHAPE
            whole = (1, *SHAPE)  # one chunk, one block
            nnUNetDatasetBlosc2.save_case(
                data, segmentation, properties, str(folder / case), whole, whole, whole, whole
            )
    (base / "dataset_fingerprint.json").write_text("{}")
    splits = [{"train": CASES[:4], "val": CASES[4:]}] * 5
    (base / "splits_final.json").write_text(json.dumps(splits))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    for name, value in SETTINGS.items():
        monkeypatch.setenv(f"DINOMED3D_{name}", value)
    shrink(monkeypatch)
    torch.manual_seed(0)
