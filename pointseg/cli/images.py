"""Options of images that points are given features of, shared by the commands; heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinomed3d.runtime.device import choose_device
from pointseg.cli.command import at_least

if TYPE_CHECKING:
    import torch

    from dinomed3d.lifting import Encoder
    from pointseg.images.config import ImageConfig
    from pointseg.images.features.feature_cache import FeatureCache
    from pointseg.training.checkpoint import EncoderSource


DEFAULT = "vit_small_patch16_dinov3"
"""The image encoder where none is named."""


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
        "--encoder", default=DEFAULT, metavar="NAME",
        help="DINOv3 or DINOv2 (default: %(default)s)",
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


def add_seeing(group: Any) -> None:
    """How the images of clouds are used by a trained model."""
    group.add_argument(
        "--image-views",
        type=at_least(1),
        metavar="N",
        help="images of one cloud (default: the recipe's)",
    )
    group.add_argument(
        "--allow-unseen", action="store_true",
        help="clouds without images, or whose images show no point, are predicted without",
    )  # fmt: skip


def seeing_changes(arguments: argparse.Namespace) -> Callable[[ImageConfig], ImageConfig]:
    """What the options of ``add_seeing`` change."""
    changes: dict[str, Any] = {}
    if arguments.image_views is not None:
        changes["views"] = arguments.image_views
    if arguments.allow_unseen:
        changes["allow_unseen"] = True
    return lambda images: replace(images, **changes)


def seen_by(
    images: ImageConfig, arguments: argparse.Namespace
) -> tuple[Encoder | None, FeatureCache | None, ImageConfig]:
    """The encoder or the cache of its features, and the recipe with what they know.

    Raises:
        UserError: neither or both are given; they cannot be read or do not fit.
    """
    from dinomed3d.runtime.errors import UserError
    from pointseg.images.features.encoder import RANDOM
    from pointseg.training.image_encoder import cached_for, open_for

    if (arguments.weights is None) == (arguments.image_cache is None):
        raise UserError(
            f"--images: give either --weights with a file of {images.encoder} (download it from Meta or the "
            "Hugging Face hub; 'hub' does so, 'none' takes random ones for a trial), or --image-cache"
        )
    if arguments.image_cache is not None:
        cache, known = cached_for(images, arguments.image_cache)
        if cache.views is not None and (images.views is None or cache.views <= images.views):
            print(
                f"the cache holds {cache.views} images of each scene: all training sees; more vary more "
                "(--views of pointseg-cache-features)",
                file=sys.stderr,
            )
        return None, cache, known
    if arguments.weights == RANDOM:
        print(
            f"random weights for {images.encoder}: a trial of the way, whose features mean little",
            file=sys.stderr,
        )
    encoder, known = open_for(
        images,
        arguments.weights,
        precision=encoder_precision(arguments.device, arguments.precision),
    )
    return encoder, None, known


def model_encoder(arguments: argparse.Namespace) -> EncoderSource | None:
    """Opens the encoder of a trained model, if weights are given."""
    from pointseg.training.image_encoder import trained_with

    if arguments.weights is None:
        return None
    precision = encoder_precision(arguments.device, arguments.precision)
    return trained_with(arguments.weights, precision=precision)


def encoder_precision(device: str, precision: str) -> torch.dtype | None:
    """In which an encoder computes: on CUDA bfloat16 unless float32 is asked for, else as the rest does.

    The largest activations of DINOv3 do not fit float16.
    """
    import torch

    if choose_device(device) == "cuda" and precision != "float32":
        return torch.bfloat16
    return None
