"""Where the image features of a run or of a trained model come from: an encoder or a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dinomed3d.lifting import Encoder
from dinomed3d.lifting.missing_weights import POINTS, where_to_get_weights
from dinomed3d.runtime.errors import UserError
from pointseg.images.config import ImageConfig, require_whole_patches
from pointseg.images.features.encoder import (
    RANDOM,
    open_encoder,
    weights_digest,
)
from pointseg.images.features.feature_cache import FeatureCache, find_cache

if TYPE_CHECKING:
    from pointseg.models.trained_model import EncoderSource

SIZE_OPTION = "--override images.size=[{},{}]"
"""How the size of the images of a run is set."""


@dataclass(frozen=True)
class ImageFeatures:
    """Source of the image features of a new run: one of encoder and cache is None."""

    config: ImageConfig
    """The settings completed with channels, stride and digest of the encoder's weights."""
    encoder: Encoder | None
    """Encodes the images."""
    cache: FeatureCache | None
    """Features that were encoded before."""


def open_image_features(
    images: ImageConfig,
    *,
    weights: str | None,
    cache: Path | None,
    dtype: torch.dtype | None = None,
    log: Callable[[str], None] = print,
) -> ImageFeatures:
    """Open the encoder of a new run, or the cache of its features.

    Args:
        images: how the run uses images.
        weights: of the encoder, as ``open_encoder`` takes them; None: use ``cache``.
        cache: folder that ``pointseg-cache-features`` wrote; None: use ``weights``.
        dtype: autocast type of the encoder; None: as the weights are.
        log: receives warnings.

    Raises:
        UserError: neither or both are given; they cannot be read or are for another encoder or image size;
            the image size is not in whole patches.
    """
    if weights is not None and cache is not None:
        raise UserError("--weights, --image-cache: give one of them, where features come from")
    if weights is None and cache is None:
        raise UserError(
            f"--images: give --weights or --image-cache. {where_to_get_weights(images.encoder, POINTS)}"
        )
    if weights is not None:
        if weights == RANDOM:
            log(
                f"random weights for {images.encoder}: pipeline test only, features are meaningless"
            )
        encoder, config = open_for(images, weights, precision=dtype)
        _require_whole_patches(images, encoder.stride)
        return ImageFeatures(config, encoder, None)
    assert cache is not None
    found = find_cache(
        cache, encoder=images.encoder, size=images.size, taps=images.taps, tile=images.tile
    )
    if found.views is not None and (images.views is None or found.views <= images.views):
        log(
            f"training uses only the {found.views} cached images per scene; cache more (--max-views of "
            "pointseg-cache-features) for more variety"
        )
    config = replace(
        images,
        channels=found.channels,
        stride=found.stride,
        weights_sha256=found.weights_sha256,
        augment=False,  # cached features are those of unchanged images
    )
    return ImageFeatures(config, None, found)


def open_for(
    images: ImageConfig, weights: str, *, precision: torch.dtype | None = None
) -> tuple[Encoder, ImageConfig]:
    """The encoder that the settings name, and the settings completed with the encoder's properties.

    Args:
        images: of a new run.
        weights: as ``open_encoder`` takes them.
        precision: autocast type; None: as the weights are.

    Raises:
        UserError: see ``open_encoder``.
    """
    encoder = open_encoder(
        images.encoder, weights, images.encoder_config, precision=precision, taps=images.taps
    )
    known = replace(
        images,
        channels=encoder.all_channels,
        stride=encoder.stride,
        weights_sha256=weights_digest(encoder),
    )
    return encoder, known


def _require_whole_patches(images: ImageConfig, patch: int) -> None:
    """Refuse a size of images or tiles that cuts patches."""
    require_whole_patches(images.size, patch, images.encoder, SIZE_OPTION)
    if images.tile is not None:
        tile = images.tile, images.tile
        require_whole_patches(tile, patch, images.encoder, "--override images.tile={}")


def cache_of(images: ImageConfig, root: Path) -> FeatureCache:
    """The cached features that a trained model reads.

    Raises:
        UserError: the cache has no features of the model's encoder, weights, blocks, image size and tiles.
    """
    return find_cache(
        root,
        encoder=images.encoder,
        size=images.size,
        taps=images.taps,
        tile=images.tile,
        weights_sha256=images.weights_sha256,
    )


def trained_with(weights: str, *, precision: torch.dtype | None = None) -> EncoderSource:
    """A function that opens the encoder of a trained model and refuses other weights.

    Args:
        weights: as ``open_encoder`` takes them.
        precision: autocast type; None: as the weights are.

    Raises:
        UserError: raised by the function: see ``open_encoder``; weights that the model was not trained with.
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
