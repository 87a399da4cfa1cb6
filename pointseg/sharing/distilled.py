"""A distilled backbone in a file: what it must hold before others get it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.weights_fit import misfits
from pointseg.config.recipe import Recipe
from pointseg.config.serialization import read_recipe
from pointseg.models.checkpoint import DISTILLED
from pointseg.models.network import backbone_of
from pointseg.models.trained_model import with_named_backbone
from pointseg.plugins import is_plugin

PREFIX = "backbone."
"""Begins the names of the weights that a training takes; others map them to the teacher's features."""


def is_distilled(content: Mapping[str, Any]) -> bool:
    """Whether a file is of ``pointseg-distill``: a backbone without classes."""
    return bool(content["format"] == DISTILLED)


def backbone_alone(
    path: Path, content: Mapping[str, Any], backbone: str | None
) -> tuple[Recipe, dict[str, Tensor]]:
    """The recipe and the weights of a distilled backbone, which fit each other.

    Args:
        path: the file, for messages.
        content: of it.
        backbone: a class of the user's own that it was distilled into; None: it must be built in.

    Raises:
        UserError: it is not whole, or its weights are of another network than its recipe's.
    """
    try:
        recipe = with_named_backbone(read_recipe(content["recipe"]), backbone)
        weights = {k: v for k, v in content["model"].items() if k.startswith(PREFIX)}
        if recipe.images is None:
            raise UserError("its recipe names no image encoder")
        if not weights:  # a class of the user's own is not built here, which would find the others
            raise UserError(f"has no weights of a backbone, whose names begin with {PREFIX}")
        if not is_plugin(recipe.backbone):  # what its arguments mean is its own
            with torch.device("meta"):
                planned = backbone_of(recipe).state_dict()
            if problems := misfits({f"{PREFIX}{k}": v for k, v in planned.items()}, weights):
                raise UserError(f"weights do not fit the recipe: {'; '.join(problems)}")
    except UserError as error:
        raise UserError(f"checkpoint {path}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"checkpoint {path}: is not a whole backbone of pointseg-distill: {type(error).__name__} "
            f"({error!s:.200}); copy it again"
        ) from error
    return recipe, weights
