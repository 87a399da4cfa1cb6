"""The network of a recipe, with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dinomed3d.runtime.errors import UserError
from pointseg.backbones import Backbone, build_backbone
from pointseg.config.recipe import Recipe
from pointseg.conventions import PRETRAINED_ENCODERS
from pointseg.images.config import ImageConfig
from pointseg.segmenter import Segmenter

if TYPE_CHECKING:
    from dinomed3d.lifting import Encoder
    from pointseg.ditr import PointImages


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
