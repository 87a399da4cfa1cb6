"""Where a test gets images from, and which image options make sense for a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dinomed3d.runtime.errors import UserError
from pointseg.evaluation.spec import EvaluationSpec
from pointseg.images.config import ImageConfig
from pointseg.loading.scene_images import ImageLoader, SceneImageLoader
from pointseg.models.image_encoder import cache_of
from pointseg.models.trained_model import TrainedSpec

OPTION_OF = {"views": "--max-views", "allow_missing_images": "--allow-missing-images"}
"""Options that change fields of an ImageConfig."""


def refuse_image_options(model: Path, given: Mapping[str, Any], hint: str = "") -> None:
    """Refuse options of images for a model that reads none.

    Args:
        model: its file.
        given: options and whether they are given (values other than None and False).
        hint: appended to the message.

    Raises:
        UserError: some are given.
    """
    options = [
        option for option, value in given.items() if value is not None and value is not False
    ]
    if options:
        raise UserError(
            f"{', '.join(options)}: the model {model} reads no images; leave out options of images{hint}"
        )


def scene_images(spec: EvaluationSpec, trained: TrainedSpec) -> SceneImageLoader | None:
    """The images of the scenes, for a model that reads images; None for one that does not.

    Raises:
        UserError: image options or camera corruption for a model without images; neither weights nor cache, or
            both, for a model with images; more views than the cache holds.
    """
    _check_options(spec, trained)
    stated = trained.recipe.images
    if stated is None:
        return None
    images = replace(stated, **spec.image_changes)
    change = spec.corruption.corrupt_frames if spec.corruption.affects_cameras else None
    if change is not None:
        images = replace(images, allow_missing_images=True)
    if spec.image_cache is None:
        return SceneImageLoader(spec.dataset, ImageLoader(images, None, change))
    cache = cache_of(images, spec.image_cache)
    held = cache.views
    if held and images.views != stated.views and (images.views or held + 1) > held:
        raise UserError(
            f"--max-views {images.views}: the cache {cache.root} holds {held} images of each scene; use at most "
            "that many, or add more with pointseg-cache-features --max-views"
        )
    return SceneImageLoader(spec.dataset, ImageLoader(images, cache, change))


def visibility_loader(spec: EvaluationSpec) -> SceneImageLoader | None:
    """Decides which points are visible, for ``by_visibility``; scenes may have no images."""
    if spec.by_visibility is None:
        return None
    images = replace(spec.by_visibility.recipe(spec.dataset), **spec.image_changes)
    cache = None if spec.image_cache is None else cache_of(images, spec.image_cache)
    return SceneImageLoader(
        spec.dataset, ImageLoader(replace(images, allow_missing_images=True), cache)
    )


def images_of_model(spec: EvaluationSpec, trained: TrainedSpec) -> ImageConfig | None:
    """How the model uses images in this test."""
    images = trained.recipe.images
    return None if images is None else replace(images, **spec.image_changes)


def _check_options(spec: EvaluationSpec, trained: TrainedSpec) -> None:
    source, images = spec.by_visibility, trained.recipe.images
    if spec.encoder is not None and spec.image_cache is not None:
        raise UserError("--weights, --image-cache: give only one of them")
    if spec.corruption.drop_color and "color" not in trained.needs:
        raise UserError(f"--drop-color: the model {spec.model} reads no colours")
    if images is None:
        if spec.corruption.affects_cameras:
            raise UserError(
                f"--drop-views, --pixel-noise, --angle-noise: the model {spec.model} reads no images"
            )
        given: dict[str, Any] = {
            "--weights": spec.encoder,
            "--image-cache": spec.image_cache,
            **{OPTION_OF[name]: value for name, value in spec.image_changes.items()},
        }
        hint = ""
        if source is None:
            hint = "; to score visible points separately, add --by-visibility"
        else:
            given.pop("--max-views", None)
            if source.model is not None:
                del given["--image-cache"]
            hint = "; --image-cache goes with --by-visibility MODEL, whose features it holds"
        refuse_image_options(spec.model, given, hint)
        return
    if source is not None and source.model is not None:
        raise UserError(
            f"--by-visibility {source.model}: the model {spec.model} reads images, which decide what is visible; "
            f"leave {source.model} out"
        )
    if spec.encoder is None and spec.image_cache is None:
        raise UserError(
            f"model {spec.model}: reads features of {images.encoder}; give the weights it was trained "
            "with (--weights FILE), or features of pointseg-cache-features (--image-cache DIR)"
        )
