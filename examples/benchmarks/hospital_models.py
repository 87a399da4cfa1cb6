"""Small models for `hospital.py`: planned, trained for a minute or two, written in nnU-Net's layout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[NDArray[Any], NDArray[Any], Sequence[float]]
"""Image and labels (Z, Y, X), spacing (z, y, x) in millimetres."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model to plan and train; axes are in the plan's order, after its transposition."""

    name: str
    labels: int
    """Foreground labels 1, 2, ..."""
    regions: bool = False
    """Predict overlapping regions of these labels instead of the labels."""
    spacing_mm: tuple[float, ...] = (1.5, 1.5, 1.5)
    """Target spacing of the axes of the patch."""
    patch: tuple[int, ...] = (96, 96, 96)
    """Patch size in voxels; two axes make a 2d plan."""
    thick_stages: int = 0
    """Number of stages, after the first, that do not stride the first axis."""
    transpose: tuple[int, int, int] = (0, 1, 2)
    normalization: str = "CTNormalization"
    features: tuple[int, ...] = (8, 16, 32, 64)
    training_patch: tuple[int, ...] | None = None
    steps: int = 200
    seed: int = 0

    @property
    def configuration(self) -> str:
        return "3d_fullres" if len(self.patch) == 3 else "2d"

    @property
    def dataset(self) -> dict[str, Any]:
        """dataset.json."""
        every = list(range(1, self.labels + 1))
        labels: dict[str, Any] = {"background": 0}
        if self.regions:  # each inside the one before
            middle = every[: max(2, len(every) // 2)]
            labels |= {"all": every, "some": middle, "one": 1}
        else:
            labels |= {f"organ {k}": k for k in every}
        content = {
            "channel_names": {"0": "CT" if self.normalization.startswith("CT") else "MRI"},
            "labels": labels,
            "numTraining": 1,
            "file_ending": ".nii.gz",
        }
        return content | ({"regions_class_order": [3, 2, 1]} if self.regions else {})

    def plans(self, intensities: dict[str, float]) -> dict[str, Any]:
        """plans.json; what this benchmark does not choose has nnU-Net's default."""
        dim, stages = len(self.patch), len(self.features)
        thick = [1] + [3] * (dim - 1), [1] + [2] * (dim - 1)
        strides = [[1] * dim] + [
            thick[1] if 0 < i <= self.thick_stages else [2] * dim for i in range(1, stages)
        ]
        image = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
        resample = "resample_data_or_seg_to_shape"
        configuration = {
            "data_identifier": f"nnUNetPlans_{self.configuration}",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": list(self.patch),
            "median_image_size_in_voxels": list(self.patch),
            "spacing": list(self.spacing_mm),
            "normalization_schemes": [self.normalization],
            "use_mask_for_norm": [False],
            "resampling_fn_data": resample,
            "resampling_fn_data_kwargs": image,
            "resampling_fn_seg": resample,
            "resampling_fn_seg_kwargs": image | {"is_seg": True, "order": 1},
            "resampling_fn_probabilities": resample,
            "resampling_fn_probabilities_kwargs": image | {"order": 1},
            "batch_dice": False,
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": stages,
                    "features_per_stage": list(self.features),
                    "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
                    "kernel_sizes": [
                        thick[0] if i < self.thick_stages else [3] * dim for i in range(stages)
                    ],
                    "strides": strides,
                    "n_conv_per_stage": [2] * stages,
                    "n_conv_per_stage_decoder": [2] * (stages - 1),
                    "conv_bias": True,
                    "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
                    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                    "dropout_op": None,
                    "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
        return {
            "dataset_name": "Dataset900_Hospital",
            "plans_name": "nnUNetPlans",
            "original_median_spacing_after_transp": [1.5, 1.5, 1.5],
            "original_median_shape_after_transp": [200, 270, 270],
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": list(self.transpose),
            "transpose_backward": [self.transpose.index(axis) for axis in range(3)],
            "configurations": {self.configuration: configuration},
            "experiment_planner_used": "ExperimentPlanner",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": intensities},
        }


def build(plans: dict[str, Any], dataset: dict[str, Any], configuration: str) -> nn.Module:
    """The plan's network as nnU-Net builds it for prediction, with random weights."""
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
    """Intensity statistics of the labelled voxels, as in nnU-Net's fingerprint."""
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


def train_model(
    spec: ModelSpec, pairs: Sequence[Pair], folder: Path, device: torch.device | str = "cpu"
) -> Path:
    """Train as `spec` says on a device and write nnU-Net's model folder; an existing one is kept."""
    model = folder / f"{spec.name}" / f"nnUNetTrainer__nnUNetPlans__{spec.configuration}"
    note = model / "benchmark.json"
    if note.exists() and json.loads(note.read_text())["spec"] == repr(spec):
        return model
    started = time.perf_counter()
    torch.manual_seed(spec.seed)
    plans, dataset = spec.plans(intensities_of(pairs)), spec.dataset
    network = build(plans, dataset, spec.configuration)
    cases = [_prepared(pair, plans, dataset, spec) for pair in pairs]
    loss = _train(network.to(device), spec, cases, torch.device(device))
    network.cpu()
    write_model(model, network, plans, dataset, spec, pairs)
    seconds = time.perf_counter() - started
    print(f"trained {spec.name}: {seconds:.0f} s, loss {loss:.4f}", file=sys.stderr)
    note.write_text(json.dumps({"spec": repr(spec), "seconds": seconds, "loss": loss}))
    return model


def _prepared(
    pair: Pair, plans: dict[str, Any], dataset: dict[str, Any], spec: ModelSpec
) -> tuple[Tensor, Tensor]:
    """A case after nnU-Net's preprocessing: image (1, Z, Y, X), labels (Z, Y, X)."""
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


def _train(
    network: nn.Module,
    spec: ModelSpec,
    cases: Sequence[tuple[Tensor, Tensor]],
    device: torch.device,
) -> float:
    """Train on patches, most of them around a label; the mean loss of the last steps."""
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
        image = torch.stack([p[0] for p in patches]).to(device)
        target = torch.stack([p[1] for p in patches]).to(device).long()
        if len(spec.patch) == 2:
            image, target = image[:, :, 0], target[:, 0]
        with torch.autocast(device.type, torch.bfloat16):
            output = network(image).float()
        if regions is None:
            loss = F.cross_entropy(output, target)
        else:
            wanted = [torch.isin(target, torch.tensor(region, device=device)) for region in regions]
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
    """A patch of the given size, zero-padded where the case is smaller."""
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
    """Write the folder that nnU-Net's training writes; mirroring is allowed along all axes of the patch."""
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
    """A trained model with a new last layer of large random weights, for `labels` labels."""
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
