"""Options of images that points are given features of, shared by the commands; heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dinomed3d.lifting import Encoder
    from pointseg.images.cache import FeatureCache
    from pointseg.images.recipe import ImageRecipe


def add_images(parser: argparse.ArgumentParser) -> None:
    """Options of images that points are given features of."""
    group = parser.add_argument_group("images (DITR)")
    group.add_argument(
        "--images", action="store_true", help="give the points features of the dataset's images"
    )
    add_encoder(group)
    add_encoder_weights(group)


def add_encoder(group: Any) -> None:
    """Which encoder of images, for new runs."""
    group.add_argument(
        "--encoder", default="vit_small_patch16_dinov3", metavar="NAME",
        help="DINOv3 or DINOv2 (default: vit_small_patch16_dinov3)",
    )  # fmt: skip


def add_encoder_weights(group: Any) -> None:
    """Where the encoder of images, or what it makes, comes from."""
    group.add_argument(
        "--weights", metavar="FILE",
        help="of the image encoder: a file or folder, 'hub' (downloads), or 'none' (random, for trials)",
    )  # fmt: skip
    group.add_argument(
        "--image-cache", type=Path, metavar="DIR",
        help="instead: features that pointseg-cache-features made",
    )  # fmt: skip


def seen_by(
    images: ImageRecipe, arguments: argparse.Namespace
) -> tuple[Encoder | None, FeatureCache | None, ImageRecipe]:
    """The encoder or the cache of its features, and the recipe with what they know.

    Raises:
        UserError: neither or both are given; they cannot be read or do not fit.
    """
    from pointseg.engine.encoders import cached_for, open_for
    from pointseg.errors import UserError
    from pointseg.images.encoding import RANDOM

    if (arguments.weights is None) == (arguments.image_cache is None):
        raise UserError(
            f"--images: give either --weights with a file of {images.encoder} (download it from Meta or the "
            "Hugging Face hub; 'hub' does so, 'none' takes random ones for a trial), or --image-cache"
        )
    if arguments.image_cache is not None:
        cache, known = cached_for(images, arguments.image_cache)
        return None, cache, known
    if arguments.weights == RANDOM:
        print(
            f"random weights for {images.encoder}: a trial of the way, whose features mean little",
            file=sys.stderr,
        )
    encoder, known = open_for(images, arguments.weights)
    return encoder, None, known
