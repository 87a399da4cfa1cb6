"""Small models for `hospital.py`, trained for a minute or two and written as nnU-Net leaves them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hospital_plans import ModelSpec
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[NDArray[Any], NDArray[Any], Sequence[float]]
"""Image and labels (Z, Y, X), spacing (z, y, x) in millimetres."""


def build(plans: dict[str, Any], dataset: dict[str, Any], configuration: str) -> nn.Module:
    """The plan's network as nnU-Net builds it for predicting, with the weights of a beginner."""
    manager = PlansManager(plans)
    planned = manager.get_configuration(configuration)
    network: nn.Module = get_network_from_plans(
        planned.network_arch_class_name,
        planned.network_arch_init_kwargs,
        planned.network_arch_init_kwargs_req_import,
        1,
        manager.get_label_manager(dataset).num_segmentation_heads,
        deep_supervision=False,
    )
    return network


def intensities_of(pairs: Sequence[Pair]) -> dict[str, float]:
    """The fingerprint's figures of the labelled voxels."""
    values = np.concatenate([image[labels > 0][::7] for image, labels, _ in pairs])
    low, median, high = np.percentile(values.astype(np.float64), [0.5, 50, 99.5])
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "median": float(median),
        "min": float(values.min()),
        "max": float(values.max()),
        "percentile_00_5": float(low),
        "percentile_99_5": float(high),
    }


def train_model(spec: ModelSpec, pairs: Sequence[Pair], folder: Path) -> Path:
    """Train as `spec` says and write nnU-Net's model folder; one that lies there is kept."""
    model = folder / f"{spec.name}" / f"nnUNetTrainer__nnUNetPlans__{spec.configuration}"
    note = model / "benchmark.json"
    if note.exists() and json.loads(note.read_text())["spec"] == repr(spec):
        return model
    started = time.perf_counter()
    torch.manual_seed(spec.seed)
    plans, dataset = spec.plans(intensities_of(pairs)), spec.dataset
    network = build(plans, dataset, spec.configuration)
    loss = _train(network, spec, [_prepared(pair, plans, dataset, spec) for pair in pairs])
    write_model(model, network, plans, dataset, spec, pairs)
    seconds = time.perf_counter() - started
    print(f"trained {spec.name}: {seconds:.0f} s, loss {loss:.4f}", file=sys.stderr)
    note.write_text(json.dumps({"spec": repr(spec), "seconds": seconds, "loss": loss}))
    return model


def _prepared(
    pair: Pair, plans: dict[str, Any], dataset: dict[str, Any], spec: ModelSpec
) -> tuple[Tensor, Tensor]:
    """Through nnU-Net's own preprocessing: image (1, Z, Y, X), labels (Z, Y, X)."""
    image, labels, spacing = pair
    manager = PlansManager(plans)
    planned = manager.get_configuration(spec.configuration)
    data, target, _ = planned.preprocessor_class(verbose=False).run_case_npy(
        image[None].astype(np.float32),
        labels[None].astype(np.int16),
        {"spacing": list(spacing)},
        manager,
        planned,
        dataset,
    )
    return torch.from_numpy(np.asarray(data)), torch.from_numpy(np.asarray(target))[0].clamp(0)


def _train(network: nn.Module, spec: ModelSpec, cases: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Patches, half of them around a label; the mean loss of the last steps."""
    rng = np.random.default_rng(spec.seed)
    size = spec.training_patch or spec.patch
    size = size if len(size) == 3 else (1, *size)
    places = [[torch.nonzero(t == k) for k in range(1, spec.labels + 1)] for _, t in cases]
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, spec.steps, pct_start=0.1)
    regions = [v for v in spec.dataset["labels"].values() if v != 0] if spec.regions else None
    losses = []
    batch = 2 if len(spec.patch) == 3 else 12
    network.train()
    for _ in range(spec.steps):
        patches = []
        for _ in range(batch):
            number = int(rng.integers(len(cases)))
            found = places[number][int(rng.integers(spec.labels))]
            around = (
                found[int(rng.integers(len(found)))] if len(found) and rng.random() < 0.8 else None
            )
            patches.append(_patch(*cases[number], size, around, rng))
        image = torch.stack([p[0] for p in patches])
        target = torch.stack([p[1] for p in patches]).long()
        if len(spec.patch) == 2:
            image, target = image[:, :, 0], target[:, 0]
        with torch.autocast("cpu", torch.bfloat16):
            output = network(image).float()
        if regions is None:
            loss = F.cross_entropy(output, target)
        else:
            wanted = [torch.isin(target, torch.tensor(region)) for region in regions]
            loss = F.binary_cross_entropy_with_logits(output, torch.stack(wanted, 1).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    network.eval()
    return float(np.mean(losses[-10:]))


def _patch(
    image: Tensor,
    labels: Tensor,
    size: Sequence[int],
    around: Tensor | None,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """A piece of that size, padded with zeros where the case is smaller."""
    pad = [
        n
        for s, w in zip(reversed(labels.shape), reversed(size), strict=True)
        for n in (0, max(0, w - s))
    ]
    image, labels = F.pad(image, pad), F.pad(labels, pad)
    box = [slice(None)]
    for axis, (have, want) in enumerate(zip(labels.shape, size, strict=True)):
        start = int(rng.integers(have - want + 1))
        if around is not None:
            near = int(around[axis]) - int(rng.integers(want))
            start = min(max(0, near), have - want)
        box.append(slice(start, start + want))
    return image[tuple(box)], labels[tuple(box[1:])]


def write_model(
    model: Path,
    network: nn.Module,
    plans: dict[str, Any],
    dataset: dict[str, Any],
    spec: ModelSpec,
    pairs: Sequence[Pair],
) -> None:
    """The folder that nnU-Net's training leaves, mirrored along all axes of the patch."""
    (model / "fold_0").mkdir(parents=True, exist_ok=True)
    fingerprint = {
        "spacings": [list(spacing) for _, _, spacing in pairs],
        "shapes_after_crop": [list(image.shape) for image, _, _ in pairs],
        "foreground_intensity_properties_per_channel": plans[
            "foreground_intensity_properties_per_channel"
        ],
        "median_relative_size_after_cropping": 1.0,
    }
    files = {"plans": plans, "dataset": dataset, "dataset_fingerprint": fingerprint}
    for name, content in files.items():
        (model / f"{name}.json").write_text(json.dumps(content, indent=1))
    checkpoint = {
        "network_weights": network.state_dict(),
        "optimizer_state": None,
        "grad_scaler_state": None,
        "logging": {},
        "_best_ema": None,
        "current_epoch": 1,
        "init_args": {
            "plans": plans,
            "configuration": spec.configuration,
            "fold": 0,
            "dataset_json": dataset,
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": tuple(range(len(spec.patch))),
    }
    torch.save(checkpoint, model / "fold_0" / "checkpoint_final.pth")


def with_many_labels(source: Path, spec: ModelSpec, labels: int, folder: Path) -> Path:
    """The trained body of a model with a random, sharp last layer for `labels` labels."""
    many = replace(spec, name=f"{spec.name}-{labels}", labels=labels)
    model = folder / many.name / source.name
    plans = json.loads((source / "plans.json").read_text())
    weights = torch.load(source / "fold_0" / "checkpoint_final.pth", weights_only=False)
    network = build(plans, many.dataset, spec.configuration)
    kept = {k: v for k, v in weights["network_weights"].items() if "seg_layers" not in k}
    network.load_state_dict(network.state_dict() | kept)
    generator = torch.Generator().manual_seed(spec.seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if "seg_layers" in name:
                value.copy_(3 * torch.randn(value.shape, generator=generator))
    write_model(model, network, plans, many.dataset, many, [])
    return model
