"""Checkpoints: weights with everything needed to use them, read without executing code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import new_file
from dinomed3d.runtime.files.tensor_files import TensorFileError, read_torch
from dinomed3d.runtime.files.weights_fit import misfits
from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory
from pointseg.backbones import Backbone, build_backbone
from pointseg.config.recipe import Recipe
from pointseg.config.serialization import read_recipe
from pointseg.conventions import PRETRAINED_ENCODERS
from pointseg.datasets.classes import ClassList
from pointseg.files import cloud_suffix
from pointseg.images.config import ImageConfig
from pointseg.plugins import is_plugin
from pointseg.segmenter import Segmenter

if TYPE_CHECKING:
    from dinomed3d.lifting import Encoder
    from pointseg.ditr import PointImages

EncoderSource = Callable[[ImageConfig], "Encoder"]
"""A function that opens the image encoder that a recipe names."""

FORMAT, DISTILLED = "pointseg-1", "pointseg-distilled-1"
"""Formats of segmenters and of distilled backbones."""


@dataclass(frozen=True, kw_only=True)
class TrainedSpec:
    """Recipe and classes of a trained model."""

    recipe: Recipe
    """How it was trained."""
    classes: ClassList
    """What its outputs mean."""
    sha256: str
    """SHA-256 of the file."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Scene fields that it reads as well as coordinates."""
        return self.recipe.needs

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user of the model should know."""
        licence = self.recipe.licence
        return (f"licence of the weights that it was trained from: {licence}",) if licence else ()


def build_segmenter(recipe: Recipe, num_classes: int, encoder: Encoder | None = None) -> Segmenter:
    """The network of a recipe, with random weights.

    Args:
        recipe: decides the network.
        num_classes: number of outputs.
        encoder: image encoder, if the recipe uses images; None: clouds come with features.

    Raises:
        UserError: ``backbone_config`` has arguments that the backbone does not take.
    """
    fitting: dict[str, Any] = {}
    images = recipe.images
    if images is not None:
        fitting["image_channels"] = images.channels
        fitting["image_drop"], fitting["image_pooling"] = images.point_drop, images.pooling
    backbone = backbone_of(recipe, **fitting)
    lifted = None if images is None else point_images(images, encoder)
    segmenter = Segmenter(backbone, num_classes, lifted)
    segmenter.freeze(*_frozen_parts(backbone, recipe))
    return segmenter


def _frozen_parts(backbone: Backbone, recipe: Recipe) -> tuple[torch.nn.Module, ...]:
    """What a recipe leaves as it is.

    Raises:
        UserError: the network has no decoder that could be trained by itself.
    """
    if recipe.tune == "all":
        return ()
    if recipe.backbone == "linear":
        raise UserError(
            f"recipe: 'tune' must be all with linear, got {recipe.tune}: its head alone is trained anyway"
        )
    if recipe.tune == "linear":
        return (backbone,)
    parts = [getattr(backbone, name, None) for name in ("embedding", "enc", "dec")]
    embedding, encoder, decoder = parts
    if embedding is None or encoder is None or not decoder:
        raise UserError(
            f"recipe: 'tune' must be linear or all with {recipe.backbone}, got decoder: it has no encoder that can "
            "be kept by itself"
        )
    return embedding, encoder


def backbone_of(recipe: Recipe, **fitting: Any) -> Backbone:
    """The 3D network of a recipe, with random weights.

    Raises:
        UserError: ``backbone_config`` has arguments that the backbone does not take.
    """
    fitting = {"in_channels": recipe.in_channels, **fitting}
    if recipe.backbone in PRETRAINED_ENCODERS:
        fitting["enc_mode"] = recipe.tune == "linear"
    if recipe.backbone == "pointnext":  # its radii are lengths, not voxels
        fitting["radius_m"] = 2.5 * recipe.voxel_m * recipe.input.scale
    try:
        return build_backbone(recipe.backbone, **{**fitting, **recipe.backbone_config})
    except UserError:
        raise
    except (ValueError, TypeError) as error:  # from the backbone's constructor
        raise UserError(f"recipe: 'backbone_config' does not fit: {error}") from error


def point_images(images: ImageConfig, encoder: Encoder | None) -> PointImages:
    """The module that lifts image features to points, as a recipe says.

    Raises:
        UserError: an encoder with other features than the recipe was made for.
    """
    from pointseg.ditr import PointImages

    if encoder is not None and (encoder.all_channels, encoder.stride) != (
        images.channels,
        images.stride,
    ):
        raise UserError(
            f"the model reads {images.channels} features of {images.stride}-pixel patches "
            f"({images.encoder}, blocks {list(images.taps)}); the encoder given makes {encoder.all_channels} of "
            f"{encoder.stride} pixels"
        )
    height, width = images.size
    return PointImages(
        encoder,
        channels=images.channels,
        stride=images.stride,
        image_size=(height, width),
        fuse=images.fuse,
        sample=images.sample,
        missing_token=images.missing_token,
        tile=images.tile,
    )


def save_checkpoint(
    path: Path,
    model: Mapping[str, torch.Tensor],
    *,
    recipe: Recipe,
    classes: ClassList,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write weights, recipe and classes atomically.

    Args:
        path: the file.
        model: the segmenter's state dict.
        recipe: how it was trained.
        classes: what its outputs mean.
        training: state for resuming, tensors and plain values only; None in models to distribute.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "recipe": recipe.to_json(),
        "classes": list(classes.names),
        "colors": np.asarray(classes.colors).tolist(),
        "codes": list(classes.codes),
        "groups": json.dumps({name: list(rows) for name, rows in classes.groups.items()}),
        "model": {key: value.detach().cpu() for key, value in model.items()},
    }
    if training is not None:
        content["training"] = dict(training)
    write_content(path, content)


def write_content(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values atomically."""
    with new_file(path) as part, open(part, "wb") as stream:
        torch.save(dict(content), stream)


def read_checkpoint(path: Path, formats: Sequence[str] = (FORMAT,)) -> dict[str, Any]:
    """The content of a file that :func:`write_content` wrote.

    Args:
        path: the file.
        formats: accepted formats.

    Raises:
        UserError: no such file, a folder, not readable, or of another format.
    """
    if path.is_dir():
        inside = [path / name for name in ("best.pt", "last.pt") if (path / name).is_file()]
        advice = f"give {inside[0]}" if inside else "give best.pt of a training's folder"
        raise UserError(f"checkpoint {path}: is a folder; {advice}")
    try:
        content = read_torch(path)
    except TensorFileError as error:
        if path.is_file() and cloud_suffix(path) not in (None, ".bin"):  # -m and FILES confused
            raise UserError(
                f"checkpoint {path}: is a cloud, not a model; give a model of pointseg-train, such as "
                "runs/first/best.pt"
            ) from error
        raise UserError(f"checkpoint {error}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found == DISTILLED and found not in formats:
        raise UserError(
            f"checkpoint {path}: is a distilled backbone without classes; train it on labels with "
            "pointseg-train --init"
        )
    if not isinstance(content, dict) or found not in formats:
        raise UserError(
            f"checkpoint {path}: must be a model that pointseg-train wrote ({FORMAT}); backbones of "
            "other programs are loaded by pointseg-train --init"
        )
    return content


def load_model(
    path: Path,
    device: torch.device | str,
    *,
    encoder: EncoderSource | None = None,
    backbone: str | None = None,
) -> tuple[Segmenter, TrainedSpec]:
    """A trained model, ready to predict.

    Args:
        path: a file that :func:`save_checkpoint` wrote.
        device: to compute on.
        encoder: opens the image encoder, for models that read images; None: features will be given.
        backbone: the backbone that the caller expects. A class of the user's own (``package.module:Class``) is
            imported only if it is named here, never because the file names one; a class that was moved since
            training may have its new name here. None: the backbone must be built in.

    Raises:
        UserError: the file is missing, not ours, or its weights do not fit its recipe; it has another backbone, or
            one of the user's own that ``backbone`` does not name.
    """
    content = read_checkpoint(path)
    try:
        recipe = with_named_backbone(read_recipe(content["recipe"]), backbone)
        classes = _classes(content)
        _check_shapes(recipe, len(classes.names), content["model"])
        opened = None if encoder is None or recipe.images is None else encoder(recipe.images)
        model = build_segmenter(recipe, len(classes.names), opened)
        model.load_state_dict(content["model"])
    except UserError as error:
        raise UserError(f"checkpoint {path}: {error}") from error
    except Exception as error:  # of a file that somebody else wrote, entries may be anything
        if ran_out_of_memory(error):
            raise
        reason = (str(error).strip() or "no reason").splitlines()[0]
        raise UserError(
            f"checkpoint {path}: is not a whole model of pointseg-train: {type(error).__name__} ({reason:.200}); "
            "copy it again, or train it again with this version"
        ) from error
    spec = TrainedSpec(recipe=recipe, classes=classes, sha256=_sha256(path))
    return model.to(device).eval(), spec


def _check_shapes(recipe: Recipe, classes: int, weights: Mapping[str, torch.Tensor]) -> None:
    """Compare the shapes of the weights with the recipe's network, before any memory is taken for it.

    Raises:
        UserError: they differ.
    """
    if is_plugin(recipe.backbone):
        return  # what its arguments mean is its own, and it need not know the device without memory
    layers = sum(
        number
        for key, value in recipe.backbone_config.items()
        if any(word in key for word in ("depth", "layer", "block"))
        for number in (value if isinstance(value, (list, tuple)) else (value,))
        if isinstance(number, int)
    )
    if layers > len(weights):  # so many take for ever to build, even without memory
        raise UserError(f"its recipe asks for {layers} layers, it has {len(weights)} weights")
    if is_plugin(str(recipe.backbone_config.get("encoder", ""))):
        return
    with torch.device("meta"):
        planned = build_segmenter(recipe, classes, None).state_dict()
    problems = misfits(planned, weights)
    if problems:
        raise UserError(f"weights do not fit the recipe: {'; '.join(problems)}")


def with_named_backbone(recipe: Recipe, named: str | None) -> Recipe:
    """The recipe of a file, if no code is imported for it that the caller did not name.

    Raises:
        UserError: it needs a class of the user's own that is not named, or has another backbone.
    """
    own = recipe.backbone
    if not is_plugin(own):  # an unknown name is refused when it is built
        if named is not None and named != own:
            raise UserError(f"--backbone {named}: the model was trained with {own}; leave it out")
        return recipe
    if named is None:
        raise UserError(
            f"its backbone is a class of somebody's own, {own}; a model's file never decides what is imported: if you "
            f"trust that code, add --backbone {own}"
        )
    if not is_plugin(named):
        raise UserError(f"--backbone {named}: the model was trained with {own}; give that")
    return replace(recipe, backbone=named)


def _classes(content: Mapping[str, Any]) -> ClassList:
    if not all(isinstance(name, str) for name in content["classes"]):
        raise UserError(f"its classes must be names, they are {content['classes']!r:.80}")
    groups = {name: tuple(rows) for name, rows in json.loads(content["groups"]).items()}
    colors = np.asarray(content["colors"], np.uint8)
    codes = tuple(content.get("codes", ()))  # older files have none
    return ClassList(names=tuple(content["classes"]), colors=colors, groups=groups, codes=codes)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
