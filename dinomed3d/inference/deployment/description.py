"""What happens around an exported network, as data: from the voxels of a scan to its input, and back to labels."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dinomed3d import __version__
from dinomed3d.inference.deployment.window_shapes import AXES, WindowShapes
from dinomed3d.inference.models.licence import encoder_name, is_dinov3
from dinomed3d.inference.models.model import Model
from dinomed3d.inference.models.validate_plans import label_values
from dinomed3d.inference.nnunet.plan import Channel, Plan, Sampling

FORMAT = "dinomed3d exported network"
VERSION = 1
"""Version of the description."""
STEP = 0.5
"""Distance between windows as a fraction of the patch, at most, as nnU-Net predicts."""
NUMBERS: Mapping[str, tuple[str, ...]] = {
    "CTNormalization": ("percentile_00_5", "percentile_99_5", "mean", "std"),
}
"""Normalisation -> the statistics of the training set that it reads; others read those of the scan."""
FORMULAS: Mapping[str, str] = {
    "CTNormalization": "(clip(x, percentile_00_5, percentile_99_5) - mean) / max(std, 1e-8)",
    "ZScoreNormalization": "(x - mean) / max(std, 1e-8) of the scan",
    "NoNormalization": "x",
    "RescaleTo01Normalization": "(x - min) / max(max - min, 1e-8) of the scan",
    "RGBTo01Normalization": "x / 255",
}


def describe(
    model: Model, plan: Plan, shapes: WindowShapes, networks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of the description.

    Args:
        model: that was exported.
        plan: of the model.
        shapes: of the networks.
        networks: file, sha256 and comparison of each; their logits are averaged.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "networks": list(networks),
        "model": {
            "name": model.name,
            "hash": model.hash,
            "trainer": model.trainer,
            "configuration": model.configuration,
            "checkpoint": model.checkpoint,
            "encoder": encoder_name(model),
            "dinov3_derived": is_dinov3(model),
            "licence": model.licence,
        },
        "orientation": None if plan.reoriented_by is None else "RAS",
        "transpose": list(plan.transpose),
        "crop": "the box around all voxels that are not 0 in at least one channel",
        "channels": [
            {"name": name, **_normalisation(channel)}
            for name, channel in zip(model.channels, plan.channels, strict=True)
        ],
        "spacing_mm": list(plan.spacing_mm),
        "resampling": {"images": _sampling(plan.data), "logits": _sampling(plan.logits)},
        "windows": _windows(model, shapes),
        "input": _axes("channel", shapes, halo=shapes.halo),
        "output": _axes("class", shapes, halo=0, channels=plan.heads),
        "classes": _classes(model),
        "activation": "softmax" if plan.regions is None else "sigmoid",
        "labels": "the class with the largest logit"
        if plan.regions is None
        else "each class whose logit is above 0 writes its value, later ones over earlier ones",
        "versions": {"dinomed3d": __version__, **_versions()},
    }


def to_bytes(description: Mapping[str, Any]) -> bytes:
    """The content of the file."""
    return (json.dumps(description, indent=1, ensure_ascii=False) + "\n").encode()


def _normalisation(channel: Channel) -> dict[str, Any]:
    """Scheme, formula and numbers of one channel."""
    return {
        "normalization": channel.scheme,
        "formula": FORMULAS[channel.scheme],
        "only_nonzero": channel.masked,
        **{key: float(channel.intensities[key]) for key in NUMBERS.get(channel.scheme, ())},
    }


def _sampling(sampling: Sampling) -> dict[str, Any] | None:
    """The rule of one resampling; None for none."""
    if sampling.name == "no_resampling_hack":
        return None
    return {
        "order": sampling.order,
        "order_across": sampling.order_separate,
        "separate": sampling.force_separate,
        "separate_above": sampling.threshold,
        "clip": sampling.clip,
    }


def _windows(model: Model, shapes: WindowShapes) -> dict[str, Any]:
    return {
        "patch": list(shapes.patch),
        "patch_multiple": None if shapes.multiple is None else list(shapes.multiple),
        "halo": shapes.halo,
        "step": STEP,
        "mirrored_axes": list(model.mirroring or ()),
        "gaussian_sigma": 0.125,
    }


def _axes(
    second: str, shapes: WindowShapes, *, halo: int, channels: int | None = None
) -> dict[str, Any]:
    """Type, axes and shape of the input or the output; free sizes are None."""
    free = shapes.multiple is not None
    shape: list[int | None] = [None if free else side for side in shapes.patch]
    if shape[0] is not None:
        shape[0] += 2 * halo
    return {
        "type": "float32",
        "axes": ["batch", second, *AXES[-len(shapes.patch) :]],
        "shape": [None if shapes.is_dynamic else 1, channels or shapes.channels, *shape],
    }


def _classes(model: Model) -> list[dict[str, Any]]:
    """Name and value of the label or region of each channel of the logits, in order."""
    named = {name: value for name, value in model.labels.items() if name != "ignore"}
    order = model.regions_class_order
    if order is None:
        rows = [{"name": name, "value": label_values(value)[0]} for name, value in named.items()]
        return sorted(rows, key=lambda row: int(str(row["value"])))
    regions = {name: own for name, v in named.items() if (own := label_values(v)) != [0]}
    return [
        {"name": name, "value": value, "region_of": own}
        for (name, own), value in zip(regions.items(), order, strict=True)
    ]


def _versions() -> dict[str, str]:
    """Versions of the packages that made and checked the files, of those that are installed."""
    found = {}
    for name in ("torch", "nnunetv2", "onnx", "onnxscript", "onnxruntime"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
