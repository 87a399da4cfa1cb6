"""The recipe of a run that starts from a pretrained 3D network: what its file and the data decide."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pointseg.config.pretrained_inputs import INPUTS, NINE, PretrainedInput
from pointseg.config.recipe import Recipe
from pointseg.config.validation import RecipeError
from pointseg.conventions import PRETRAINED_ENCODERS

_OURS = ("in_channels", "enc_mode", "freeze_encoder", "mask_token")
"""Arguments in a file's configuration that the recipe decides: features, what is trained, and no mask."""
_PUBLISHED_WIDTH = 48
"""Encoders that begin at least so wide have Sonata's published decoder, narrower ones one of their own widths."""
_DECODER = {"dec_channels": [64, 96, 192, 384], "dec_num_head": [4, 6, 12, 24]}


def network_of(recipe: Recipe) -> str:
    """The name of the 3D network that reads the points: the backbone, or the encoder below a linear probe."""
    if recipe.backbone == "linear":
        return str(recipe.backbone_config.get("encoder") or recipe.backbone)
    return recipe.backbone


def with_probed(recipe: Recipe, family: str, config: Mapping[str, Any]) -> Recipe:
    """A recipe of a linear probe of the encoder of a file.

    Args:
        recipe: with the backbone "linear".
        family: name of the encoder.
        config: arguments of its constructor, as the file has them.
    """
    ours = {key: value for key, value in config.items() if key not in _OURS}
    inner = {"encoder": family, "encoder_config": {**ours, "enc_mode": True}}
    return replace(recipe, backbone_config=json.loads(json.dumps(inner)))


def with_configuration(recipe: Recipe, config: Mapping[str, Any]) -> Recipe:
    """A recipe whose backbone is that of a file.

    Args:
        recipe: of a network that is published as an encoder, or of another one.
        config: arguments of its constructor, as the file has them. A decoder on top of an encoder has the sizes
            of the published fine-tunings: two blocks in each stage.
    """
    ours = {key: value for key, value in config.items() if key not in _OURS}
    if recipe.backbone in PRETRAINED_ENCODERS:
        for name in [key for key in ours if key.startswith("dec_")]:
            if name != "dec_rope_enable" and config.get("enc_mode", True):
                del ours[name]  # without effect in the file's network
        ours = _decoder(recipe.backbone, ours) | ours
    # as it will be in the checkpoint: lists, not tuples
    return replace(recipe, backbone_config=json.loads(json.dumps(ours)))


def _decoder(backbone: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the decoder on top of an encoder."""
    channels, heads = list(config["enc_channels"]), list(config["enc_num_head"])
    stages = len(channels) - 1
    sizes = {"dec_channels": channels[:-1], "dec_num_head": heads[:-1]}
    if backbone == "sonata" and stages == 4 and channels[0] >= _PUBLISHED_WIDTH:
        sizes = dict(_DECODER)
    windows = list(config["enc_patch_size"])[:-1]
    return {"dec_depths": [2] * stages, "dec_patch_size": windows, **sizes}


def with_pretrained_input(recipe: Recipe, fields: frozenset[str]) -> Recipe:
    """A recipe that reads its scenes as the weights of its backbone were trained to.

    Voxels are as large as the recipe says; the scale makes each of them one cell of the grid that the weights
    know, 0.02 units for Sonata and Concerto in rooms, else 0.01.

    Args:
        recipe: of a dataset.
        fields: that the scenes have. Where there is no colour or normal, weights that were trained for such gaps
            get zeros: Utonia's, and Concerto's outdoors.
    """
    expected = expected_input(recipe)
    if expected is None:
        return recipe
    grid = expected.voxel_m * expected.transform.scale
    gaps = network_of(recipe) == "utonia" or not recipe.is_indoor
    missing = tuple(name for name in NINE if name != "coord" and name not in fields)
    transform = replace(
        expected.transform,
        scale=round(grid / recipe.voxel_m, 9),
        zeros=missing if gaps else (),
    )
    return replace(recipe, features=expected.features, color_range="unit", input=transform)


def expected_input(recipe: Recipe) -> PretrainedInput | None:
    """What the weights of a recipe's backbone were trained with; None: as any other backbone's."""
    network = network_of(recipe)
    if network == "sonata":
        return INPUTS["sonata" if recipe.is_indoor else "concerto_outdoor"]
    if network == "utonia":
        return INPUTS["utonia_indoor" if recipe.is_indoor else "utonia_outdoor"]
    return None


def check_fields(recipe: Recipe, dataset: str, fields: frozenset[str]) -> None:
    """Refuse a dataset without a field that a pretrained encoder reads.

    Raises:
        RecipeError: naming it, and how zeros are asked for.
    """
    if network_of(recipe) not in PRETRAINED_ENCODERS:
        return
    missing = [name for name in recipe.needs if name not in fields]
    if missing:
        zeros = json.dumps([*recipe.input.zeros, *missing])
        raise RecipeError(
            f"--backbone {recipe.backbone}: its weights read {', '.join(recipe.features)}, {dataset} has no "
            f"{', '.join(missing)}; Concerto's weights and Sonata's of October 2025 were trained to do without, "
            f"Sonata's first ones were not: zeros are given with --override 'input.zeros={zeros}'"
        )
