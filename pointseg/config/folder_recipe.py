"""The recipe of a user's own folder of clouds: what the files and their description decide."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from pointseg.config.recipe import FEATURES, PointCloudFormat, Recipe
from pointseg.datasets.folder.dataset import Folder
from pointseg.plugins import is_plugin

if TYPE_CHECKING:
    from pointseg.datasets.dataset import Dataset
    from pointseg.datasets.folder.description import Description


def fit_to_dataset(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Adapt the ``folder`` recipe to a folder, or to a dataset of the user's own; others are returned unchanged.

    Features, voxel size and file format are those of the description; a dataset of the user's own has the format
    of files in metres with z up, and the recipe's voxel size unless it has one. Lengths of the augmentation and
    the overlap of tiles are scaled with the voxel size, so that they stay the same number of voxels.
    """
    if recipe.dataset != "folder" and not is_plugin(recipe.dataset):
        return recipe
    features = tuple(name for name in FEATURES if name in dataset.fields)
    voxel_m: float = getattr(dataset, "voxel_m", None) or recipe.voxel_m
    description = getattr(dataset, "description", None)
    scale = voxel_m / recipe.voxel_m
    varied = recipe.augmentation
    return replace(
        recipe,
        features=features or ("coord",),
        voxel_m=voxel_m,
        augmentation=replace(
            varied,
            jitter_m=varied.jitter_m * scale,
            jitter_clip_m=varied.jitter_clip_m * scale,
            elastic=tuple((cell * scale, size * scale) for cell, size in varied.elastic),
        ),
        test=replace(recipe.test, margin_m=recipe.test.margin_m * scale),
        test_splits=("test",) if "test" in dataset.splits() else recipe.val_splits,
        cloud_format=recipe.cloud_format if description is None else _format(description, dataset),
    )


def guesses_intensity_scale(recipe: Recipe) -> bool:
    """Whether the scale of intensities is guessed for each file, and may differ between files."""
    is_guessed = recipe.dataset == "folder" and recipe.cloud_format.intensity_max is None
    return is_guessed and "strength" in recipe.features


def read_as_stated(dataset: Dataset, recipe: Recipe, *, overrides: bool) -> None:
    """Let the files of a folder be read with the ranges of values that a recipe states.

    Args:
        dataset: others than folders stay as they are.
        recipe: of a run or a model.
        overrides: whether the recipe counts where the folder's description states another range.
    """
    if isinstance(dataset, Folder):
        own, given = dataset.description.ranges, recipe.cloud_format.ranges
        if not overrides and own.color_max is not None:
            given = replace(given, color_max=own.color_max)
        if not overrides and (own.intensity_min, own.intensity_max) != (None, None):
            given = replace(own, color_max=given.color_max)
        dataset.state_ranges(given)


def _format(description: Description, dataset: Dataset) -> PointCloudFormat:
    columns, label = description.columns, description.label
    if columns is not None and label is not None and "label" not in columns:
        # Clouds to predict may lack the labels: under this name the column is known to be optional.
        columns = tuple("label" if name == label else name for name in columns)
    return PointCloudFormat(
        unit_m=description.unit_m,
        up=description.up,
        columns=columns,
        bin_columns=columns if getattr(dataset, "has_scans", False) else None,
        **asdict(description.ranges),
    )
