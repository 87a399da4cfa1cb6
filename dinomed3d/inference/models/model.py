"""A trained model: nnU-Net's folder or zip, or a package of ours; looked through, then opened."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinomed3d.inference.models.manifest import TEXTS, Manifest, read_manifest
from dinomed3d.inference.models.model_files import LARGEST_TEXT, MANIFEST, Holdings, open_holdings
from dinomed3d.inference.models.network_weights import (
    digest,
    from_safetensors,
    network_weights,
    read_nnunet_checkpoint,
)
from dinomed3d.inference.models.validate_plans import (
    channel_names,
    check_architecture,
    check_dataset,
    check_name,
    check_plans,
    configuration_of,
    parse,
)
from dinomed3d.runtime.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

FINAL = "checkpoint_final.pth"
PACKED = "checkpoint.safetensors"
"""Name of a fold's weights in a package."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is known of a trained model without its weights in memory."""

    source: Path
    """Folder or zip."""
    plans: dict[str, Any]
    """As in plans.json."""
    dataset: dict[str, Any]
    """As in dataset.json."""
    fingerprint: dict[str, Any] | None
    """As in dataset_fingerprint.json."""
    trainer: str
    """Name of the class."""
    configuration: str
    """Of the plan."""
    folds: tuple[str, ...]
    """Numbers, or all."""
    checkpoint: str
    """Name of the file that the weights are from."""
    mirroring: tuple[int, ...] | None
    """Spatial axes along which training mirrored, in the network's order; None: not at all."""
    weights: dict[str, str]
    """Fold -> digest of its tensors, see `weights.digest`."""
    sizes: dict[str, int]
    """Bytes of the files that make it."""
    training: dict[str, Any] = field(default_factory=dict)
    """What our trainer noted: version, recipe, spec."""
    manifest: Manifest | None = None
    """Of a package."""

    @property
    def hash(self) -> str:
        """sha256 over everything that masks depend on.

        That is plans, dataset, trainer, configuration, mirroring, and the tensors of these folds; not
        how they are stored: a folder and a package made from it have the same.
        """
        parts = [self.plans, self.dataset, self.trainer, self.configuration, self.mirroring]
        text = json.dumps([*parts, [[fold, self.weights[fold]] for fold in self.folds]])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def name(self) -> str:
        """Of the data set it was trained on."""
        return str(self.plans["dataset_name"])

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the image's channels, in their order."""
        names = channel_names(self.dataset)
        return tuple(names[str(i)] for i in range(len(names)))

    @property
    def labels(self) -> dict[str, int | list[int]]:
        """Name -> value in the mask, or the values that a region covers; in the order of dataset.json."""
        found: dict[str, int | list[int]] = {}
        for name, value in self.dataset["labels"].items():
            items = [int(v) for v in (value if isinstance(value, list) else [value])]
            found[name] = items if len(items) > 1 else items[0]
        return found

    @property
    def mask_values(self) -> dict[str, list[int]]:
        """Which values of a mask make each label or region, without background and ignore label.

        A region's voxels carry the value of the last region written there, so a region is made of the
        values of all regions within it.
        """
        named = {
            name: [value] if isinstance(value, int) else list(value)
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
        """Which value each region writes, later ones over earlier; None without regions."""
        if not any(isinstance(value, list) for value in self.labels.values()):
            return None
        return tuple(int(v) for v in self.dataset["regions_class_order"])

    @property
    def ending(self) -> str:
        """Of the training images."""
        return str(self.dataset["file_ending"])

    @property
    def reader(self) -> str:
        """nnU-Net's name of what read the training images."""
        return str(self.plans["image_reader_writer"])

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration, with what it inherits."""
        return configuration_of(self.plans, self.configuration, f"model {self.source}: plans.json")

    @property
    def spacing(self) -> tuple[float, ...]:
        """Of the network's grid, mm, in the network's order of axes."""
        return tuple(float(s) for s in self.settings["spacing"])

    @property
    def patch(self) -> tuple[int, ...]:
        """Voxels that the network sees at a time."""
        return tuple(self.settings["patch_size"])

    @property
    def licence(self) -> str | None:
        """Its name, where the model came with one."""
        return self.manifest.licence if self.manifest is not None else None

    @property
    def label_volumes_ml(self) -> dict[str, list[float]] | None:
        """Smallest and largest of each label in the training set, where the model came with it."""
        return self.manifest.label_volumes_ml if self.manifest is not None else None


def open_model(path: Path, *, folds: Sequence[str] | None = None, checkpoint: str = FINAL) -> Model:
    """Look through a model, and through its weights as far as their digest needs it.

    Args:
        path: a trained-model folder of nnU-Net v2, its exported zip, or a package.
        folds: which; None for all that have the checkpoint, fold_all only where there is no other.
        checkpoint: name of the file in each fold; a package has one only.

    Raises:
        UserError: no model, folds that are not there, damaged files, or a model that wants more than
            to be a network.
    """
    holdings = open_holdings(Path(path))
    what = f"model {holdings.path}"
    if MANIFEST in holdings.sizes:
        manifest = read_manifest(holdings, checkpoint if checkpoint != FINAL else None)
        chosen = _choose(manifest.folds, folds, f"{what}: the package")
        known = manifest.known
        weights = {fold: manifest.weights[fold] for fold in chosen}
        files = [f"fold_{fold}/{PACKED}" for fold in chosen]
        checkpoint = manifest.checkpoint
    else:
        if "/" in checkpoint or "\\" in checkpoint or not checkpoint.endswith(".pth"):
            raise UserError(f"--checkpoint must be a name such as {FINAL}, got {checkpoint!r}")
        manifest = None
        chosen = _choose(_folds(holdings, checkpoint), folds, f"{what}: {checkpoint}")
        files = [f"fold_{fold}/{checkpoint}" for fold in chosen]
        known, weights = _look(holdings, dict(zip(chosen, files, strict=True)))
    plans, dataset, fingerprint = _texts(holdings)
    check_name(known["trainer"], f"{what}: the trainer")
    configuration = known["configuration"]
    check_dataset(dataset, f"{what}: dataset.json")
    check_plans(plans, configuration, len(channel_names(dataset)), f"{what}: plans.json")
    check_architecture(plans, configuration, f"{what}: plans.json")
    patch = configuration_of(plans, configuration, what)["patch_size"]
    texts = [name for name in (MANIFEST, *TEXTS) if name in holdings.sizes]
    return Model(
        source=holdings.path,
        plans=plans,
        dataset=dataset,
        fingerprint=fingerprint,
        trainer=known["trainer"],
        configuration=configuration,
        folds=chosen,
        checkpoint=checkpoint,
        mirroring=_mirroring(known["mirroring"], len(patch), what),
        weights=weights,
        sizes={name: holdings.sizes[name] for name in [*texts, *files]},
        training=known["training"],
        manifest=manifest,
    )


def fold_weights(model: Model, fold: str) -> dict[str, Tensor]:
    """The network's tensors of one fold, on the CPU, as they are stored.

    Args:
        model: from `open_model`.
        fold: one of its folds.

    Raises:
        UserError: the file is gone or is another than when the model was opened.
    """
    holdings = open_holdings(model.source)
    if model.manifest is not None:
        name = f"fold_{fold}/{PACKED}"
        weights = from_safetensors(holdings.read(name), f"{model.source}: {name}")
    else:
        _, weights = _read_fold(holdings, f"fold_{fold}/{model.checkpoint}")
    if digest(weights) != model.weights[fold]:
        raise UserError(
            f"model {model.source}: the weights of fold {fold} are not the ones that belong to it; copy the model "
            "again"
        )
    return weights


def _texts(holdings: Holdings) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """plans.json, dataset.json, and dataset_fingerprint.json where there is one."""

    def read(name: str) -> dict[str, Any]:
        where = f"model {holdings.path}: {name}"
        return parse(holdings.read(name, largest=LARGEST_TEXT), where)

    fingerprint = "dataset_fingerprint.json"
    there = fingerprint in holdings.sizes
    return read("plans.json"), read("dataset.json"), read(fingerprint) if there else None


def _folds(holdings: Holdings, checkpoint: str) -> tuple[str, ...]:
    """All that have the checkpoint."""
    found = [re.fullmatch(r"fold_(\d+|all)/(.+)", name) for name in sorted(holdings.sizes)]
    files = [(match[1], match[2]) for match in found if match]
    folds = {fold for fold, file in files if file == checkpoint}
    if not folds:
        others = sorted({file for _, file in files if file.endswith(".pth")})
        advice = (
            f"there is {', '.join(others)}, which --checkpoint can name; a training writes {FINAL} at its end"
            if others
            else f"no fold has a checkpoint; a training writes fold_X/{FINAL} at its end"
        )
        raise UserError(f"model {holdings.path}: no fold has {checkpoint}; {advice}")
    return _sorted(folds)


def _sorted(folds: set[str]) -> tuple[str, ...]:
    return tuple(sorted(folds, key=lambda fold: (fold == "all", fold.zfill(9))))


def _choose(there: Sequence[str], asked: Sequence[str] | None, what: str) -> tuple[str, ...]:
    """The folds to use, each once, in the order of their numbers."""
    if asked is None:
        return tuple(fold for fold in there if fold != "all") or tuple(there)
    wanted = {str(fold).removeprefix("fold_") for fold in asked}
    if lacking := sorted(wanted - set(there)):
        raise UserError(
            f"{what} is there for folds {', '.join(there)}, not for {', '.join(lacking)}; choose with --folds"
        )
    if not wanted:
        raise UserError("--folds must name at least one fold")
    return _sorted(wanted)


def _read_fold(holdings: Holdings, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A checkpoint of nnU-Net: all of it, and the network's weights."""
    where = f"{holdings.path}: {name}"
    content = read_nnunet_checkpoint(holdings.source(name), where)
    return content, network_weights(content, where, holdings.sizes[name])


def _look(holdings: Holdings, files: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the checkpoints say about the model (of the first fold, as nnU-Net does), and their digests."""
    known: dict[str, Any] = {}
    weights = {}
    for fold, name in files.items():
        content, tensors = _read_fold(holdings, name)
        weights[fold] = digest(tensors)
        arguments = content.get("init_args")
        configuration = arguments.get("configuration") if isinstance(arguments, dict) else None
        trainer = content.get("trainer_name")
        if not isinstance(configuration, str) or not isinstance(trainer, str):
            raise UserError(
                f"checkpoint {holdings.path}: {name}: lacks 'trainer_name' or 'init_args' with a 'configuration'; "
                "it is not one of nnU-Net v2"
            )
        if configuration != known.get("configuration", configuration):
            raise UserError(
                f"model {holdings.path}: fold {fold} is of configuration {configuration}, another one of "
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
