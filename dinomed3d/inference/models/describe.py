"""Properties of a model, for `dinomed3d inspect`."""

from __future__ import annotations

from typing import Any

from dinomed3d.hub.local_model import name_or_path
from dinomed3d.inference.models.licence import encoder_name, is_dinov3
from dinomed3d.inference.models.model import Model
from dinomed3d.runtime.messages.counted import sides
from dinomed3d.runtime.messages.terminal_text import one_line

MIB = 1 << 20


def inspect_json(model: Model) -> dict[str, Any]:
    """Everything that is known of a model without its weights, as plain data."""
    manifest, training = model.manifest, model.training
    recipe = training.get("recipe")
    architecture = model.settings.get("architecture") or {}
    order, mirroring = model.regions_class_order, model.mirroring
    return {
        "name": model.name,
        "source": name_or_path(model.source),
        "kind": "package" if manifest is not None else "nnU-Net model",
        "hash": model.hash,
        "trainer": model.trainer,
        "plans": model.plans["plans_name"],
        "configuration": model.configuration,
        "previous_stage": None if model.previous is None else model.previous.configuration,
        "folds": list(model.folds),
        "checkpoint": model.checkpoint,
        "channels": list(model.channels),
        "labels": model.labels,
        "regions_class_order": None if order is None else list(order),
        "ending": model.ending,
        "reader": model.reader,
        "spacing_mm": list(model.spacing),
        "patch": list(model.patch),
        "axes": list(model.plans["transpose_forward"]),
        "normalization": list(model.settings["normalization_schemes"]),
        "mirroring": None if mirroring is None else list(mirroring),
        "network": architecture.get("network_class_name") or model.settings["UNet_class_name"],
        "encoder": encoder_name(model),
        "encoder_weights": recipe.get("weights") if isinstance(recipe, dict) else None,
        "dinov3_derived": is_dinov3(model),
        "licence": model.licence,
        "label_volumes_ml": model.label_volumes_ml,
        "trained_with": training.get("version"),
        "packed_with": manifest.versions if manifest is not None else None,
        "files": dict(model.sizes),
    }


def inspect_text(model: Model) -> str:
    """The same as a table for people."""
    known = inspect_json(model)
    rows = [
        ("model", known["name"]),
        ("from", f"{known['source']} ({known['kind']})"),
        ("trainer", known["trainer"]),
        ("plans", f"{known['plans']}, configuration {known['configuration']}"),
        ("network", known["network"]),
    ]
    if known["encoder"]:
        derived = ", derived from DINOv3" if known["dinov3_derived"] else ""
        random = known["encoder_weights"] == "none"
        origin = ", trained from random weights" if random else derived
        rows.append(("encoder", known["encoder"] + origin))
    if known["previous_stage"]:
        rows.append(("cascade", f"reads the labels of {known['previous_stage']}, predicted first"))
    rows += [
        ("channels", ", ".join(f"{i} {name}" for i, name in enumerate(known["channels"]))),
        ("normalization", ", ".join(known["normalization"])),
        ("spacing", f"{sides(known['spacing_mm'])} mm, axes in the order {known['axes']}"),
        ("patch", f"{sides(known['patch'])} voxels"),
        ("images", f"{known['ending']}, read by {known['reader']}"),
        ("folds", f"{', '.join(known['folds'])} ({known['checkpoint']})"),
        ("mirroring", ", ".join(f"axis {a}" for a in known["mirroring"] or ()) or "none"),
        ("licence", _licence(known)),
    ]
    if known["trained_with"]:
        rows.append(("trained with", f"dinomed3d {known['trained_with']}"))
    if known["packed_with"]:
        packed = ", ".join(f"{name} {version}" for name, version in known["packed_with"].items())
        rows.append(("packed with", packed))
    rows.append(("hash", known["hash"]))
    lines = [f"{name:<14}{value}" for name, value in rows]
    lines += ["", *_labels(known), "", *_files(known)]
    return "\n".join(one_line(line) for line in lines)


def _licence(known: dict[str, Any]) -> str:
    if known["licence"]:
        return f"{known['licence']} (LICENSE.txt in the package)"
    if known["dinov3_derived"]:
        return "DINOv3 License, its text is not included; 'dinomed3d package --licence' adds it"
    return "none included"


def _labels(known: dict[str, Any]) -> list[str]:
    """A table of labels: value, or that of a region with the labels in it."""
    order = iter(known["regions_class_order"] or ())
    volumes = known["label_volumes_ml"] or {}
    width = max(len(name) for name in known["labels"])
    lines = [f"{'label':<{width}}  value" + ("  in training, ml" if volumes else "")]
    for name, value in known["labels"].items():
        text = str(value)
        if known["regions_class_order"] and name != "ignore" and value != 0:
            covered = value if isinstance(value, list) else [value]
            text = f"{next(order)} (region of {', '.join(map(str, covered))})"
        if name in volumes:
            text = f"{text:<5}  {volumes[name][0]:g} to {volumes[name][1]:g}"
        lines.append(f"{name:<{width}}  {text}")
    return lines


def _files(known: dict[str, Any]) -> list[str]:
    width = max(len(name) for name in known["files"])
    total = sum(known["files"].values())
    lines = [f"{name:<{width}}  {size / MIB:10.2f} MiB" for name, size in known["files"].items()]
    return [f"{'file':<{width}}", *lines, f"{'all':<{width}}  {total / MIB:10.2f} MiB"]
