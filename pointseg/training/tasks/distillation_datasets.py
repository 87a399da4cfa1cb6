"""The datasets of a distillation: one or several, each with its own visibility rule, voxels and crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.suggestion import suggestion
from pointseg import datasets
from pointseg.config.folder_recipe import fit_to_dataset
from pointseg.config.presets import DISTILLATION_SPLITS, images_of, recipe_for
from pointseg.config.recipe import Recipe
from pointseg.config.serialization import override
from pointseg.conventions import DATASETS
from pointseg.datasets.dataset import Dataset
from pointseg.datasets.mixture import Mixture, SampleSteps, SourceDataset
from pointseg.loading.samples import training_steps, validation_steps
from pointseg.plugins import FORM, is_plugin

OF_ALL = (
    "images.", "voxel_m", "max_points", "sphere_fraction", "clip_box_m", "drop_outside", "augmentation.",
)  # fmt: skip
"""Beginnings of the keys of a recipe that are each dataset's own; overrides of them are for all datasets."""


def mix_datasets(
    dataset: Dataset, recipe: Recipe, also: Sequence[str], changes: Sequence[str]
) -> Mixture:
    """The dataset of a distillation together with further ones.

    Args:
        dataset: the first one.
        recipe: of the run, with images.
        also: further datasets as ``NAME=DIR``. Their images have the size of the first one's, and what the
            network reads is the same; visibility, number of views, voxels, crops and augmentation are those of
            their own recipes, unless ``changes`` override them.
        changes: ``key=value`` overrides of the recipe.

    Raises:
        UserError: not ``NAME=DIR``, an unknown dataset, one without images or without the features that the
            network reads.
    """
    own = [change for change in changes if change.startswith(OF_ALL)]
    first = SourceDataset(dataset, recipe.train_splits, recipe.val_splits, steps=_steps(recipe))
    return Mixture([first, *(_source(text, recipe, own) for text in also)])


def describe_datasets(mixture: Mixture, recipe: Recipe) -> list[str]:
    """Lines that say what the datasets share, and the visibility rule, voxels and crops of each."""
    images = recipe.images
    assert images is not None
    height, width = images.size
    lines = [
        f"images of all datasets are resized to {height} x {width} pixels, the size of "
        f"{mixture.sources[0].dataset.name} (--override images.size=[H,W] changes it); each dataset has its own "
        "visibility rule, voxels and crops:"
    ]
    for source in mixture.sources:
        rule = images if source.images is None else images.with_visibility_of(source.images)
        made = "" if source.steps is None else f"; {source.steps.in_words}"
        lines.append(
            f"{source.dataset.name} ({', '.join(source.train)}): {rule.viewing_in_words()}{made}"
        )
    return lines


def _source(text: str, recipe: Recipe, changes: Sequence[str]) -> SourceDataset:
    name, equals, folder = text.partition("=")
    if not equals or not (name in DATASETS or is_plugin(name)):
        raise UserError(
            f"--also {text}: must be NAME=DIR with NAME one of {', '.join(DATASETS)} or {FORM}"
            f"{suggestion([name], DATASETS)}"
        )
    assert recipe.images is not None
    dataset = datasets.open_dataset(name, Path(folder), labelled=False)
    own = fit_to_dataset(recipe_for(name, recipe.backbone, "full"), dataset)
    own = replace(own, images=images_of(own, recipe.images.encoder))
    own = replace(
        override(own, changes),
        features=recipe.features,
        color_range=recipe.color_range,
        input=recipe.input,
    )
    lacking = sorted(set(own.needs) - dataset.fields)
    if lacking:
        raise UserError(
            f"--also {text}: its scenes lack {', '.join(lacking)}, which the network reads; leave it out of all "
            "datasets with --override features=..."
        )
    train, val = DISTILLATION_SPLITS.get(name, (own.train_splits, own.val_splits))
    return SourceDataset(dataset, train, val, own.images, _steps(own))


def _steps(recipe: Recipe) -> SampleSteps:
    voxels = f"voxels of {recipe.voxel_m:g} m"
    if recipe.is_indoor and recipe.max_points is not None:
        share = "" if recipe.sphere_fraction == 1 else f"{recipe.sphere_fraction:.0%} of a scene, "
        voxels += f", crops of {share}at most {recipe.max_points:,}"
    return SampleSteps(training_steps(recipe), validation_steps(recipe), voxels)
