"""A trained model, read from its file without executing code, and checked before any memory is taken for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.weights_fit import misfits
from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory
from pointseg.config.recipe import Recipe
from pointseg.config.serialization import read_recipe
from pointseg.datasets.classes import ClassList
from pointseg.images.config import ImageConfig
from pointseg.models.checkpoint import read_checkpoint
from pointseg.models.network import build_segmenter
from pointseg.plugins import is_plugin
from pointseg.segmenter import Segmenter

if TYPE_CHECKING:
    from dinomed3d.lifting import Encoder

EncoderSource = Callable[[ImageConfig], "Encoder"]
"""A function that opens the image encoder that a recipe names."""


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
        with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and replaced
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
