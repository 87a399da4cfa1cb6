"""A trained model: a folder or zip of nnU-Net, or a package of ours; checked, then opened."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinomed3d.inference.models.cascade import open_cascade_files, previous_files
from dinomed3d.inference.models.manifest import TEXTS, Manifest, read_manifest
from dinomed3d.inference.models.model_files import (
    LARGEST_TEXT,
    MANIFEST,
    ModelFiles,
    open_model_files,
)
from dinomed3d.inference.models.network_weights import (
    digest,
    from_safetensors,
    network_weights,
    read_nnunet_checkpoint,
)
from dinomed3d.inference.models.portable import portable_dataset
from dinomed3d.inference.models.postprocessing import postprocessing_files
from dinomed3d.inference.models.validate_plans import (
    NAME,
    channel_names,
    check_architecture,
    check_dataset,
    check_plans,
    configuration_of,
    label_values,
    parse,
    require,
)
from dinomed3d.runtime.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

FINAL = "checkpoint_final.pth"
PACKED = "checkpoint.safetensors"
"""Name of the weights of a fold in a package."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained model without its weights in memory."""

    source: Path
    """Path of the folder or zip."""
    plans: dict[str, Any]
    """Content of plans.json."""
    dataset: dict[str, Any]
    """Content of dataset.json."""
    fingerprint: dict[str, Any] | None
    """Content of dataset_fingerprint.json, where there is one."""
    trainer: str
    """Name of the trainer class."""
    configuration: str
    """Name of the configuration in the plans."""
    folds: tuple[str, ...]
    """Folds to average: numbers, or all."""
    checkpoint: str
    """Name of the file that the weights are from."""
    mirroring: tuple[int, ...] | None
    """Spatial axes of test-time mirroring, in the network's order; None for none."""
    weights: dict[str, str]
    """Fold -> digest of its tensors (`network_weights.digest`)."""
    sizes: dict[str, int]
    """Sizes of its files, bytes."""
    training: dict[str, Any] = field(default_factory=dict)
    """Notes of our trainer: version, recipe, spec."""
    manifest: Manifest | None = None
    """Manifest of a package; None for a model of nnU-Net."""
    root: str | None = None
    """Folder of the model in a zip, ending with a slash; None for a folder."""
    postprocessing: str | None = None
    """The file with nnU-Net's postprocessing for these folds, if there is one; None too where there are several."""
    previous: Model | None = None
    """The first model of a cascade, whose labels this one reads; None for most models."""

    @property
    def hash(self) -> str:
        """sha256 of everything that masks depend on.

        That is plans, dataset, trainer, configuration, mirroring and the tensors of the folds, however
        they are stored: a folder and a package made from it have the same hash. Of a cascade both models count.
        """
        parts: list[Any] = [
            self.plans,
            portable_dataset(self.dataset),
            self.trainer,
            self.configuration,
            self.mirroring,
        ]
        parts.append([[fold, self.weights[fold]] for fold in self.folds])
        text = json.dumps(parts if self.previous is None else [*parts, self.previous.hash])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def name(self) -> str:
        """Name of the data set it was trained on."""
        return str(self.plans["dataset_name"])

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of an image, in order."""
        names = channel_names(self.dataset)
        return tuple(names[str(i)] for i in range(len(names)))

    @property
    def labels(self) -> dict[str, int | list[int]]:
        """Name -> value of a label, or values of a region; in the order of dataset.json."""
        values = {name: label_values(value) for name, value in self.dataset["labels"].items()}
        return {name: own if len(own) > 1 else own[0] for name, own in values.items()}

    @property
    def mask_values(self) -> dict[str, list[int]]:
        """The values in a mask of each label or region, without background and ignore label.

        A voxel has the value of the last region that was written there, so a region has the values of
        all regions within it.
        """
        named = {
            name: label_values(value)
            for name, value in self.labels.items()
            if name != "ignore" and value not in (0, [0])
        }
        order = self.regions_class_order
        if order is None:
            return named
        written = list(zip(named.values(), order, strict=True))
        return {
            name: sorted({value for inner, value in written if set(inner) <= set(own)})
            for name, own in named.items()
        }

    @property
    def regions_class_order(self) -> tuple[int, ...] | None:
        """The value of each region, later ones overwrite earlier ones; None without regions."""
        if not any(isinstance(value, list) for value in self.labels.values()):
            return None
        return tuple(int(v) for v in self.dataset["regions_class_order"])

    @property
    def ending(self) -> str:
        """File ending of the training images."""
        return str(self.dataset["file_ending"])

    @property
    def reader(self) -> str:
        """Name of nnU-Net's reader of the training images."""
        return str(self.plans["image_reader_writer"])

    @property
    def settings(self) -> dict[str, Any]:
        """Content of the configuration, with what it inherits."""
        return configuration_of(self.plans, self.configuration, f"model {self.source}: plans.json")

    @property
    def spacing(self) -> tuple[float, ...]:
        """Spacing of the network's grid, mm, in the network's order of axes."""
        return tuple(float(s) for s in self.settings["spacing"])

    @property
    def patch(self) -> tuple[int, ...]:
        """Shape of a window, in the network's order of axes."""
        return tuple(self.settings["patch_size"])

    @property
    def licence(self) -> str | None:
        """Name of its licence, where a package has one."""
        return self.manifest.licence if self.manifest is not None else None

    @property
    def label_volumes_ml(self) -> dict[str, list[float]] | None:
        """Label -> smallest and largest volume in the training set, where a package has them."""
        return self.manifest.label_volumes_ml if self.manifest is not None else None


def open_model(path: Path, *, folds: Sequence[str] | None = None, checkpoint: str = FINAL) -> Model:
    """Check a model, and read its weights for their digest.

    Args:
        path: a trained-model folder of nnU-Net v2, its exported zip, or a package.
        folds: to average; None for all with the checkpoint, `all` only if there is no other.
        checkpoint: name of the file in each fold; a package has one only.

    Raises:
        UserError: no model, missing folds, damaged files, or a model that names other code than networks; the
            first model of a cascade is missing or does not belong to it.
    """
    files = open_cascade_files(Path(path))
    model = _open(files, folds, checkpoint)
    stage = model.settings.get("previous_stage")
    if stage is None:
        return model
    previous = _open(previous_files(files, model.configuration, stage), folds, checkpoint)
    _check_cascade(model, previous, stage)
    return replace(model, previous=previous)


def _check_cascade(model: Model, previous: Model, stage: str) -> None:
    """Check that two models are the stages of one cascade."""
    packed = None if model.manifest is None else model.manifest.previous_stage
    for what, found, must in (
        ("configuration", previous.configuration, stage),
        ("channels", list(previous.channels), list(model.channels)),
        ("labels", previous.labels, model.labels),
        ("reader", previous.reader, model.reader),
        ("previous stage", previous.settings.get("previous_stage"), None),
        ("hash", previous.hash, packed or previous.hash),
    ):
        if found != must:
            raise UserError(
                f"model {model.source}: the first model of its cascade, {previous.source}, must have the {what} "
                f"{must}, it has {found}; both must be of one training"
            )


def _open(files: ModelFiles, folds: Sequence[str] | None, checkpoint: str) -> Model:
    """Check one model, and read its weights for their digest."""
    what = f"model {files.path}"
    if MANIFEST in files.sizes:
        manifest = read_manifest(files, checkpoint if checkpoint != FINAL else None)
        chosen = _choose(manifest.folds, folds, f"{what}: the package")
        known = manifest.known
        weights = {fold: manifest.weights[fold] for fold in chosen}
        names = [f"fold_{fold}/{PACKED}" for fold in chosen]
        checkpoint = manifest.checkpoint
    else:
        if "/" in checkpoint or "\\" in checkpoint or not checkpoint.endswith(".pth"):
            raise UserError(f"--checkpoint must be a name such as {FINAL}, got {checkpoint!r}")
        manifest = None
        chosen = _choose(_folds(files, checkpoint), folds, f"{what}: {checkpoint}")
        names = [f"fold_{fold}/{checkpoint}" for fold in chosen]
        known, weights = _read_checkpoints(files, dict(zip(chosen, names, strict=True)))
    plans, dataset, fingerprint = _texts(files)
    require(known, what, {"trainer": NAME})
    configuration = known["configuration"]
    check_dataset(dataset, f"{what}: dataset.json")
    check_plans(plans, configuration, len(channel_names(dataset)), f"{what}: plans.json")
    check_architecture(plans, configuration, f"{what}: plans.json")
    patch = configuration_of(plans, configuration, what)["patch_size"]
    texts = [name for name in (MANIFEST, *TEXTS) if name in files.sizes]
    processing = postprocessing_files(files, chosen)
    return Model(
        source=files.path,
        plans=plans,
        dataset=dataset,
        fingerprint=fingerprint,
        trainer=known["trainer"],
        configuration=configuration,
        folds=chosen,
        checkpoint=checkpoint,
        mirroring=_mirroring(known["mirroring"], len(patch), what),
        weights=weights,
        sizes={name: files.sizes[name] for name in [*texts, *names]},
        training=known["training"],
        manifest=manifest,
        postprocessing=processing[0] if len(processing) == 1 else None,
        root=None if files.members is None else files.root,
    )


def fold_weights(model: Model, fold: str) -> dict[str, Tensor]:
    """Read the network's tensors of one fold, on the CPU, as stored.

    Raises:
        UserError: the file is missing, or is not the one that the model was opened with.
    """
    files = open_model_files(model.source, root=model.root)
    if model.manifest is not None:
        name = f"fold_{fold}/{PACKED}"
        weights = from_safetensors(files.read(name), f"{model.source}: {name}")
    else:
        _, weights = _read_fold(files, f"fold_{fold}/{model.checkpoint}")
    if digest(weights) != model.weights[fold]:
        raise UserError(
            f"model {model.source}: the weights of fold {fold} are not those of this model; copy it again"
        )
    return weights


def _texts(files: ModelFiles) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """Read plans.json, dataset.json, and dataset_fingerprint.json where there is one."""

    def read(name: str) -> dict[str, Any]:
        where = f"model {files.path}: {name}"
        return parse(files.read(name, largest=LARGEST_TEXT), where)

    fingerprint = "dataset_fingerprint.json"
    there = fingerprint in files.sizes
    return read("plans.json"), read("dataset.json"), read(fingerprint) if there else None


def _folds(files: ModelFiles, checkpoint: str) -> tuple[str, ...]:
    """All folds with the checkpoint."""
    matches = [re.fullmatch(r"fold_(\d+|all)/(.+)", name) for name in files.sizes]
    pairs = [(match[1], match[2]) for match in matches if match]
    folds = {fold for fold, name in pairs if name == checkpoint}
    if not folds:
        others = sorted({name for _, name in pairs if name.endswith(".pth")})
        advice = f"use --checkpoint for {', '.join(others)}; " if others else ""
        raise UserError(
            f"model {files.path}: no fold has {checkpoint}; {advice}a training writes {FINAL} at its end"
        )
    return _sorted(folds)


def _sorted(folds: set[str]) -> tuple[str, ...]:
    return tuple(sorted(folds, key=lambda fold: (fold == "all", fold.zfill(9))))


def _choose(available: Sequence[str], asked: Sequence[str] | None, what: str) -> tuple[str, ...]:
    """Select folds, each once, in the order of their numbers."""
    if asked is None:
        return tuple(fold for fold in available if fold != "all") or tuple(available)
    wanted = {str(fold).removeprefix("fold_") for fold in asked}
    if lacking := sorted(wanted - set(available)):
        raise UserError(
            f"{what} exists for folds {', '.join(available)}, not for {', '.join(lacking)}; choose with --folds"
        )
    if not wanted:
        raise UserError("--folds must name at least one fold")
    return _sorted(wanted)


def _read_fold(files: ModelFiles, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a checkpoint of nnU-Net; also the weights of its network."""
    where = f"{files.path}: {name}"
    content = read_nnunet_checkpoint(files.source(name), where)
    return content, network_weights(content, where, files.sizes[name])


def _read_checkpoints(
    files: ModelFiles, names: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What the checkpoints say about the model (the first one, as in nnU-Net), and their digests."""
    known: dict[str, Any] = {}
    weights = {}
    for fold, name in names.items():
        content, tensors = _read_fold(files, name)
        weights[fold] = digest(tensors)
        arguments = content.get("init_args")
        configuration = arguments.get("configuration") if isinstance(arguments, dict) else None
        trainer = content.get("trainer_name")
        if not isinstance(configuration, str) or not isinstance(trainer, str):
            raise UserError(
                f"checkpoint {files.path}: {name}: lacks 'trainer_name' or 'init_args' with a 'configuration'; "
                "it is not one of nnU-Net v2"
            )
        if configuration != known.get("configuration", configuration):
            raise UserError(
                f"model {files.path}: fold {fold} is of configuration {configuration}, another one of "
                f"{known['configuration']}; choose with --folds"
            )
        own = content.get("dinomed3d")
        noted = own if isinstance(own, dict) else {}
        known = known or {
            "trainer": trainer,
            "configuration": configuration,
            "mirroring": content.get("inference_allowed_mirroring_axes"),
            "training": {key: noted[key] for key in ("version", "spec", "recipe") if key in noted},
        }
    return known, weights


def _mirroring(value: object, axes: int, what: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or any(v not in range(axes) for v in value):
        raise UserError(
            f"{what}: mirrored axes must be of {', '.join(map(str, range(axes)))}, got {value!r}; copy it again"
        )
    return tuple(sorted({int(v) for v in value})) or None
