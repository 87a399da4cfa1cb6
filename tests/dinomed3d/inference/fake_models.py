"""Tiny models as nnU-Net and our trainer leave them, written without training."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.dinomed3d.inference.models.write_model import architecture, tiny_network
from tests.dinomed3d.training.conftest import LABELS, dataset_json, plans

SPEC = {
    "encoder": "vit_small_patch16_dinov3",
    "components": ["encoder", "lora", "adapters", "detail"],
}


def stock_plans() -> dict[str, Any]:
    made = plans()
    del made["continue_training"]
    made["configurations"]["3d_fullres"]["architecture"] = architecture(3)
    return made


def named_architecture(**paths: Any) -> dict[str, Any]:
    """A plan that names other code for its network, or for arguments of it."""
    plan = stock_plans()
    architecture = plan["configurations"]["3d_fullres"]["architecture"]
    for key, path in paths.items():
        target = architecture if key == "network_class_name" else architecture["arch_kwargs"]
        target[key] = path
    return plan


def network(seed: int) -> dict[str, torch.Tensor]:
    return tiny_network(3, 1, 3, seed).state_dict()


def checkpoint(weights: dict[str, torch.Tensor], **other: Any) -> dict[str, Any]:
    """What nnUNetTrainer.save_checkpoint writes: its log holds numpy's numbers."""
    means = [np.float64(0.5), np.float32(0.25), 0.1]
    return {
        "network_weights": weights,
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(50)}}, "param_groups": []},
        "grad_scaler_state": {"scale": 65536.0},
        "logging": {"mean_fg_dice": means, "dice_per_class_or_region": [means], "lrs": [0.01]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1000,
        "init_args": {
            "plans": plans(),
            "configuration": "3d_fullres",
            "fold": 0,
            "dataset_json": dataset_json(),
            "device": torch.device("cuda"),
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        **other,
    }


def write_model(
    folder: Path,
    *,
    folds: tuple[str, ...] = ("0", "1"),
    name: str = "checkpoint_final.pth",
    plan: dict[str, Any] | None = None,
    labels: dict[str, Any] = LABELS,
    **other: Any,
) -> Path:
    """A trained-model folder; `other` replaces entries of the checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(stock_plans() if plan is None else plan))
    (folder / "dataset.json").write_text(json.dumps(dataset_json(labels)))
    (folder / "dataset_fingerprint.json").write_text('{"spacings": [[2.0, 1.0, 1.0]]}')
    for seed, fold in enumerate(folds):
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(checkpoint(network(seed), **other), folder / f"fold_{fold}" / name)
    return folder


def export(folder: Path, path: Path, root: str = "Dataset901_Tiny/nnUNetTrainer__P__c/") -> Path:
    """A zip as nnUNetv2_export_model_to_zip makes it."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, root + file.relative_to(folder).as_posix())
    return path


def ours(weights: str = "none", encoder: str = SPEC["encoder"]) -> dict[str, Any]:
    """What our trainer adds to a checkpoint."""
    spec = {**SPEC, "encoder": encoder}
    return {
        "trainer_name": "DinoMed3DTrainer",
        "dinomed3d": {"version": "0.1.0", "stage": 2, "spec": spec, "recipe": {"weights": weights}},
    }
