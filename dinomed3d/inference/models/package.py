"""A trained model as one file: tensors, plans, checksums and licence, without anything that runs code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dinomed3d import __version__
from dinomed3d.inference.models.licence import (
    LICENCE,
    encoder_name,
    is_dinov3,
    licence_name,
    licence_text,
)
from dinomed3d.inference.models.manifest import Manifest
from dinomed3d.inference.models.model import FINAL, PACKED, Model, fold_weights, open_model
from dinomed3d.inference.models.model_files import MANIFEST, PREVIOUS, ModelFiles, open_model_files
from dinomed3d.inference.models.network_weights import to_safetensors
from dinomed3d.inference.models.portable import portable_dataset, portable_training
from dinomed3d.inference.models.postprocessing import (
    PACKED_POSTPROCESSING,
    read_steps,
    to_json,
)
from dinomed3d.inference.models.training_volumes import training_volumes
from dinomed3d.inference.models.validation_scores import validation_scores
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import new_file

log = logging.getLogger(__name__)

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
    """Write a model as a package, without optimizer state, names of cases or paths.

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
    volumes = model.label_volumes_ml
    if training_labels is not None:
        volumes = training_volumes(Path(training_labels), model.labels, ending=model.ending)
    stages = [("", model), *([(PREVIOUS, model.previous)] if model.previous is not None else [])]
    contents = [_described(stage, licence, volumes) for _, stage in stages]
    with new_file(out) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for (folder, stage), content in zip(stages, contents, strict=True):
            _write(archive, folder, stage, *content)
    return out


def _described(
    model: Model, licence: Path | None, volumes: dict[str, list[float]] | None
) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest of a model without its files, and the content of the files other than weights."""
    original = open_model_files(model.source, root=model.root)
    texts = ("plans.json", "dataset.json", "dataset_fingerprint.json")
    files = {name: original.read(name) for name in texts if name in original.sizes}
    dataset = portable_dataset(model.dataset)
    if left_out := sorted(model.dataset.keys() - dataset.keys()):
        log.warning("left out of dataset.json, since it may name cases: %s", ", ".join(left_out))
        files["dataset.json"] = (json.dumps(dataset, indent=4) + "\n").encode()
    if model.postprocessing is not None:
        steps = read_steps(original.read(model.postprocessing), model.postprocessing)
        files[PACKED_POSTPROCESSING] = to_json(steps)
    text = licence_text(model, licence)
    if text is not None:
        files[LICENCE] = text
    packages = ("nnunetv2", "torch")
    manifest = Manifest(
        trainer=model.trainer,
        configuration=model.configuration,
        folds=list(model.folds),
        checkpoint=model.checkpoint,
        mirroring=None if model.mirroring is None else list(model.mirroring),
        encoder=encoder_name(model),
        dinov3_derived=is_dinov3(model),
        licence=None if text is None else licence_name(model, text),
        label_volumes_ml=volumes,
        versions={"dinomed3d": __version__, **{p: importlib.metadata.version(p) for p in packages}},
        training=portable_training(model.training),
        weights={fold: model.weights[fold] for fold in model.folds},
        files={},
        previous_stage=None if model.previous is None else model.previous.hash,
        validation=_validation(model, original),
    )
    return manifest, files


def _validation(model: Model, files: ModelFiles) -> dict[str, Any] | None:
    """Scores of the validation of the final checkpoints, or those that a package already carries."""
    if model.manifest is not None:
        kept = model.manifest.validation
        return kept if kept is not None and set(kept["folds"]) <= set(model.folds) else None
    if model.checkpoint != FINAL:
        return None
    return validation_scores(files, model.folds, model.labels)


def _write(
    archive: zipfile.ZipFile, folder: str, model: Model, manifest: Manifest, files: dict[str, bytes]
) -> None:
    """A model's files below a folder of the zip; one fold in memory at a time."""
    described = {}

    def add(name: str, content: bytes) -> None:
        member = zipfile.ZipInfo(f"{folder}{name}", MOMENT)
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
