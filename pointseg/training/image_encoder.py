"""The image encoder of a run or of a trained model: opened from weights, and held against the recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dinomed3d.lifting import Encoder
from dinomed3d.runtime.errors import UserError
from pointseg.images.config import ImageConfig
from pointseg.training.checkpoint import EncoderSource

if TYPE_CHECKING:
    from pointseg.images.features.feature_cache import FeatureCache


def open_for(
    images: ImageConfig, weights: str, *, precision: torch.dtype | None = None
) -> tuple[Encoder, ImageConfig]:
    """The encoder that a recipe names, and the recipe with what only the encoder knows.

    Args:
        images: of a new run.
        weights: as ``open_encoder`` takes them.
        precision: for autocast; None: as the weights are.

    Raises:
        UserError: see ``open_encoder``.
    """
    from pointseg.images.features.encoder import open_encoder, weights_digest

    encoder = open_encoder(images.encoder, weights, images.encoder_config, precision=precision)
    known = replace(
        images,
        channels=encoder.channels,
        stride=encoder.stride,
        weights_sha256=weights_digest(encoder),
    )
    return encoder, known


def cached_for(images: ImageConfig, root: Path) -> tuple[FeatureCache, ImageConfig]:
    """The features of a new run's images, and its recipe with what they know of their encoder.

    Raises:
        UserError: there are none for the encoder and the size that the recipe names.
    """
    from pointseg.images.features.feature_cache import find_cache

    cache = find_cache(root, encoder=images.encoder, size=images.size)
    known = replace(
        images,
        channels=cache.channels,
        stride=cache.stride,
        weights_sha256=cache.weights_sha256,
        augment=False,  # the features are of the images as they are
    )
    return cache, known


def cache_of(images: ImageConfig, root: Path) -> FeatureCache:
    """The features that a trained model reads.

    Raises:
        UserError: there are none of its encoder, weights and size of images.
    """
    from pointseg.images.features.feature_cache import find_cache

    return find_cache(
        root, encoder=images.encoder, size=images.size, weights_sha256=images.weights_sha256
    )


def trained_with(weights: str, *, precision: torch.dtype | None = None) -> EncoderSource:
    """Opens the encoder of a trained model, and refuses other weights than it was trained with.

    Args:
        weights: as ``open_encoder`` takes them.
        precision: for autocast; None: as the weights are.

    Raises:
        UserError: raised by the function: see ``open_encoder``; other weights.
    """

    def opened(images: ImageConfig) -> Encoder:
        encoder, known = open_for(images, weights, precision=precision)
        if images.weights_sha256 and known.weights_sha256 != images.weights_sha256:
            raise UserError(
                f"--weights {weights}: are not the weights of {images.encoder} that the model was trained "
                f"with (their digest begins with {known.weights_sha256[:12]}, not "
                f"{images.weights_sha256[:12]}); give the file that pointseg-train was given"
            )
        return encoder

    return opened
