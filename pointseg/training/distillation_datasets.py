"""The datasets of a distillation: one or several, each with its own visibility rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dinomed3d.runtime.errors import UserError
from pointseg import datasets
from pointseg.config.folder_recipe import fit_to_dataset
from pointseg.config.presets import images_of, recipe_for
from pointseg.config.recipe import Recipe
from pointseg.config.serialization import override
from pointseg.conventions import DATASETS
from pointseg.datasets.dataset import Dataset
from pointseg.datasets.mixture import Mixture, SourceDataset
from pointseg.plugins import FORM, is_plugin


def mix_datasets(
    dataset: Dataset, recipe: Recipe, extra: Sequence[str], changes: Sequence[str]
) -> Mixture:
    """The dataset of a distillation together with further ones.

    Args:
        dataset: the first one.
        recipe: of the run, with images.
        extra: further datasets as ``NAME=DIR``. Their images have the size of the first one's; near and far
            limit, number of views and occlusion are their own, unless ``changes`` override them.
        changes: ``key=value`` overrides of the recipe.

    Raises:
        UserError: not ``NAME=DIR``, an unknown dataset, or one without images.
    """
    own = [change for change in changes if change.startswith("images.")]
    sources = [SourceDataset(dataset, recipe.train_splits, recipe.val_splits)]
    return Mixture([*sources, *(_source(text, recipe, own) for text in extra)])


def describe_visibility(mixture: Mixture, recipe: Recipe) -> list[str]:
    """Lines that say what the datasets share, and the visibility rule of each."""
    images = recipe.images
    assert images is not None
    height, width = images.size
    lines = [
        f"images of all datasets are resized to {height} x {width} pixels, the size of "
        f"{mixture.sources[0].dataset.name} (--override images.size=[H,W] changes it); each dataset has its own "
        "visibility rule:"
    ]
    for source in mixture.sources:
        rule = images if source.images is None else images.with_visibility_of(source.images)
        lines.append(f"{source.dataset.name}: {rule.viewing_in_words()}")
    return lines


def _source(text: str, recipe: Recipe, changes: Sequence[str]) -> SourceDataset:
    name, equals, folder = text.partition("=")
    if not equals or (name not in DATASETS and not is_plugin(name)):
        raise UserError(
            f"--extra-dataset {text}: must be NAME=DIR with NAME one of {', '.join(DATASETS)} or {FORM}"
        )
    assert recipe.images is not None
    dataset = datasets.open_dataset(name, Path(folder), labelled=False)
    own = recipe_for(name, recipe.backbone, "full")
    images = images_of(fit_to_dataset(own, dataset), recipe.images.encoder)
    changed = override(replace(own, images=images), changes).images
    return SourceDataset(dataset, own.train_splits, own.val_splits, changed)
