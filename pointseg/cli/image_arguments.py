"""Options of image features that several commands have; imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.device import choose_device
from dinomed3d.runtime.messages.terminal_text import one_line
from pointseg.cli.arguments import at_least
from pointseg.conventions import DEFAULT_ENCODER
from pointseg.images.visibility import OCCLUSIONS, VisibilityConfig

if TYPE_CHECKING:
    from pointseg.config.recipe import Recipe
    from pointseg.datasets.dataset import Dataset
    from pointseg.images.config import ImageConfig
    from pointseg.models.image_encoder import ImageFeatures
    from pointseg.models.trained_model import EncoderSource


def add_encoder(group: Any) -> None:
    """Add the choice of an image encoder, for new runs."""
    group.add_argument(
        "--encoder", default=DEFAULT_ENCODER, metavar="NAME",
        help="DINOv3 or DINOv2 image encoder (default: %(default)s)",
    )  # fmt: skip


def add_encoder_weights(group: Any) -> None:
    """Add where image features come from: an encoder's weights, or a cache."""
    group.add_argument(
        "--weights", metavar="FILE",
        help="weights of the image encoder: a file or folder, 'hub' (download), or 'none' (random, for tests)",
    )  # fmt: skip
    group.add_argument(
        "--image-cache", type=Path, metavar="DIR",
        help="read features that pointseg-cache-features wrote, instead of encoding images",
    )  # fmt: skip


def add_camera_check(group: Any) -> None:
    """Add how to go on where the check before a training finds the cameras wrong."""
    group.add_argument(
        "--no-camera-check", action="store_true",
        help="do not compare a few images with their points before training, which refuses poses that are certainly "
        "read wrongly",
    )  # fmt: skip


def check_cameras(
    arguments: argparse.Namespace, dataset: Dataset, recipe: Recipe, say: Callable[[str], None]
) -> None:
    """Say before a new run whether a few images fit their points, by the option of :func:`add_camera_check`.

    Raises:
        UserError: the cameras are certainly read wrongly, or cannot be read; files of the dataset cannot be used.
    """
    from pointseg.training.run.devices import is_main_process

    if recipe.images is None or arguments.no_camera_check or arguments.resume:
        return
    if not is_main_process():
        return
    from pointseg.datasets.look_over import leave_out, look_over
    from pointseg.loading.camera_verdict import camera_verdicts, require_plausible_cameras

    leave_out(dataset, look_over(dataset, (*recipe.train_splits, *recipe.val_splits)), say)
    words = [f"pointseg-check-cameras --dataset {arguments.dataset}"]
    words += [
        f"--{key} {value}" for key in ("root", "config") if (value := getattr(arguments, key))
    ]
    try:
        verdicts = camera_verdicts(dataset, recipe.train_splits, recipe.images)
    except UserError as error:
        if arguments.image_cache is None:
            raise
        say(f"cameras were not checked: {error}")  # features need no images
        return
    look, go_on = f"{' '.join(words)} -o DIR", "--no-camera-check"
    for verdict in verdicts:
        require_plausible_cameras(verdict, how_to_look=look, go_on=go_on, say=say)


def add_image_use(group: Any) -> None:
    """Add how a trained model uses the images of a scene."""
    group.add_argument(
        "--max-views", type=at_least(1), metavar="N",
        help="maximum number of views per scene (default: that of the recipe)",
    )  # fmt: skip
    group.add_argument(
        "--allow-missing-images", action="store_true",
        help="predict scenes that have no images, or whose images show no point, without image features",
    )  # fmt: skip


def add_visibility(group: Any, *, tolerance: str) -> None:
    """Add when a point is visible in an image; ``tolerance`` explains the default of that option."""
    group.add_argument(
        "--occlusion", choices=OCCLUSIONS, default="z-buffer",
        help="what hides points: z-buffer (depth maps, or the cloud itself without them; the default); depth "
        "(depth maps only); none",
    )  # fmt: skip
    group.add_argument(
        "--near", type=float, default=0.0, metavar="M",
        help="nearer points are not visible (default: 0)",
    )  # fmt: skip
    group.add_argument("--far", type=float, metavar="M", help="farther points are not visible")
    group.add_argument(
        "--depth-tolerance", type=float, metavar="M",
        help="largest difference between the depth of a visible point and the depth map, metres (default: "
        f"{tolerance})",
    )  # fmt: skip


def visibility(arguments: argparse.Namespace, tolerance_m: float | None = None) -> VisibilityConfig:
    """When a point is visible, by the options of :func:`add_visibility`.

    Args:
        arguments: the parsed options.
        tolerance_m: the depth tolerance unless one was given. None: that of ``VisibilityConfig``.

    Raises:
        UserError: limits that leave nothing.
    """
    given = arguments.depth_tolerance
    usual = VisibilityConfig.depth_tolerance_m if tolerance_m is None else tolerance_m
    try:
        return VisibilityConfig(
            near_m=arguments.near,
            far_m=arguments.far,
            depth_tolerance_m=usual if given is None else given,
            occlusion=arguments.occlusion,
        )
    except UserError as error:
        raise UserError(f"--near, --far, --depth-tolerance: {error}") from error


def image_changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fields of an ``ImageConfig`` that the options of :func:`add_image_use` change."""
    changes: dict[str, Any] = {}
    if arguments.max_views is not None:
        changes["views"] = arguments.max_views
    if arguments.allow_missing_images:
        changes["allow_missing_images"] = True
    return changes


def image_features(arguments: argparse.Namespace, images: ImageConfig) -> ImageFeatures:
    """Where a new run gets image features from, by the options of :func:`add_encoder_weights`."""
    from pointseg.config.precision import encoder_dtype
    from pointseg.models.image_encoder import open_image_features

    return open_image_features(
        images,
        weights=arguments.weights,
        cache=arguments.image_cache,
        dtype=encoder_dtype(arguments.precision, choose_device(arguments.device)),
        log=lambda text: print(one_line(text), file=sys.stderr),
    )


def model_encoder(arguments: argparse.Namespace) -> EncoderSource | None:
    """What opens the image encoder of a trained model, if --weights is given."""
    from pointseg.config.precision import encoder_dtype
    from pointseg.models.image_encoder import trained_with

    if arguments.weights is None:
        return None
    dtype = encoder_dtype(arguments.precision, choose_device(arguments.device))
    return trained_with(arguments.weights, precision=dtype)
