"""A trained model as one file: tensors, plans, checksums and licence, without anything that runs code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path, PureWindowsPath
from typing import Any

from dinomed3d import __version__
from dinomed3d.inference.models.manifest import Manifest
from dinomed3d.inference.models.model import FINAL, PACKED, Model, fold_weights, open_model
from dinomed3d.inference.models.model_files import MANIFEST, open_model_files
from dinomed3d.inference.models.network_weights import to_safetensors
from dinomed3d.inference.models.training_volumes import training_volumes
from dinomed3d.runtime.atomic_files import new_file
from dinomed3d.runtime.errors import UserError

LICENCE = "LICENSE.txt"
LARGEST_LICENCE = 1 << 20
"""Bytes."""
DINOV3_LICENCE = "DINOv3 License"
MOMENT = (1980, 1, 1, 0, 0, 0)
"""Date of every member, so that the same model makes the same package."""


def package_model(
    source: Path,
    out: Path,
    *,
    licence: Path | None = None,
    training_labels: Path | None = None,
    folds: Sequence[str] | None = None,
    checkpoint: str = FINAL,
    overwrite: bool = False,
) -> Path:
    """Write a model as a package, without optimizer state.

    Args:
        source: a trained-model folder of nnU-Net v2, its exported zip, or another package.
        out: the zip to write.
        licence: text file; weights derived from DINOv3 need the licence of DINOv3.
        training_labels: folder of the label images of the training set, for the range of volumes.
        folds: to package; None for all.
        checkpoint: name of the file in each fold.
        overwrite: replace an existing file.

    Returns:
        `out`.

    Raises:
        UserError: as `open_model`; the licence is missing; `out` exists or cannot be written.
    """
    out = Path(out)
    if out.suffix.lower() != ".zip":
        raise UserError(f"-o must name a .zip file, got {out}")
    if out.is_dir() or (out.exists() and not overwrite):
        raise UserError(f"-o {out}: exists; name another file, or use --overwrite")
    model = open_model(source, folds=folds, checkpoint=checkpoint)
    derived = is_dinov3(model)
    files = {name: _text(model, name) for name in ("plans.json", "dataset.json")}
    if model.fingerprint is not None:
        files["dataset_fingerprint.json"] = _text(model, "dataset_fingerprint.json")
    text = _licence(model, licence, derived)
    if text is not None:
        files[LICENCE] = text
    volumes = model.label_volumes_ml
    if training_labels is not None:
        volumes = training_volumes(Path(training_labels), model.labels, ending=model.ending)
    packages = ("nnunetv2", "torch")
    manifest = Manifest(
        trainer=model.trainer,
        configuration=model.configuration,
        folds=list(model.folds),
        checkpoint=model.checkpoint,
        mirroring=None if model.mirroring is None else list(model.mirroring),
        encoder=encoder_name(model),
        dinov3_derived=derived,
        licence=None if text is None else _licence_name(text, derived),
        label_volumes_ml=volumes,
        versions={"dinomed3d": __version__, **{p: importlib.metadata.version(p) for p in packages}},
        training=_without_paths(model.training),
        weights={fold: model.weights[fold] for fold in model.folds},
        files={},
    )
    _write(out, model, manifest, files)
    return out


def _without_paths(training: dict[str, Any]) -> dict[str, Any]:
    """The notes of our trainer, with the path of the encoder's weights cut to the file name."""
    recipe = training.get("recipe")
    if not isinstance(recipe, dict) or not isinstance(recipe.get("weights"), str):
        return training
    file = PureWindowsPath(recipe["weights"]).name or "file"  # takes both kinds of slashes
    return {**training, "recipe": {**recipe, "weights": file}}


def encoder_name(model: Model) -> str | None:
    """The 2D encoder of a DINO-Med3D network, from the checkpoint or the plans; None for others."""
    if model.manifest is not None:
        return model.manifest.encoder
    spec = model.training.get("spec")
    if not isinstance(spec, dict):
        spec = (model.settings.get("architecture") or {}).get("arch_kwargs", {})
    if "encoder" not in spec.get("components", spec.get("parts", ["encoder"])):
        return None
    name = spec.get("encoder")
    return name if isinstance(name, str) else None


def is_dinov3(model: Model) -> bool:
    """Whether weights are derived from DINOv3; yes if in doubt.

    Our trainer notes what the encoder started from. With other trainers "dinov3" in the architecture or
    in the name of the trainer decides.
    """
    if model.manifest is not None:
        return model.manifest.dinov3_derived
    recipe = model.training.get("recipe")
    if isinstance(recipe, dict) and "weights" in recipe:
        return "dinov3" in (encoder_name(model) or "") and recipe["weights"] != "none"
    named = json.dumps(model.settings.get("architecture", "")) + model.trainer
    return "dinov3" in named.lower()


def _text(model: Model, name: str) -> bytes:
    return open_model_files(model.source).read(name)


def _licence(model: Model, licence: Path | None, derived: bool) -> bytes | None:
    """The text of the licence: from the given file, or from the model if that is a package."""
    if licence is None:
        if model.licence is not None:
            return _text(model, LICENCE)
        if derived:
            raise UserError(
                f"model {model.source}: its encoder is derived from DINOv3, whose licence must be included; give "
                "--licence FILE with the text that you received with those weights"
            )
        return None
    try:
        content = Path(licence).read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--licence {licence}: cannot be read as text ({error})") from error
    if not text.strip() or len(content) > LARGEST_LICENCE or "\0" in text:
        raise UserError(f"--licence {licence}: is empty or not the text of a licence")
    if derived and "dinov3" not in text.lower():
        raise UserError(
            f"--licence {licence}: does not mention DINOv3, from which the encoder is derived; give the text that you "
            "received with those weights (others may be added to the same file)"
        )
    return content


def _licence_name(text: bytes, derived: bool) -> str:
    """The name of DINOv3's licence, or the first line of the text."""
    first = next(line.strip() for line in text.decode("utf-8-sig").splitlines() if line.strip())
    return DINOV3_LICENCE if derived else first[:100]


def _write(out: Path, model: Model, manifest: Manifest, files: dict[str, bytes]) -> None:
    """The zip, under a temporary name until it is whole; one fold in memory at a time."""
    described = {}
    with new_file(out) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, content: bytes) -> None:
            member = zipfile.ZipInfo(name, MOMENT)
            member.create_system, member.external_attr = 3, 0o100644 << 16
            archive.writestr(member, content)
            sha256 = hashlib.sha256(content).hexdigest()
            described[name] = {"sha256": sha256, "bytes": len(content)}

        for name in sorted(files):
            add(name, files[name])
        for fold in model.folds:
            add(f"fold_{fold}/{PACKED}", to_safetensors(fold_weights(model, fold)))
        whole = Manifest(**{**asdict(manifest), "files": dict(described)})
        add(MANIFEST, whole.to_bytes())
