"""Scores of points that are visible in some image, and of points that are visible in none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dinomed3d.runtime.errors import UserError
from pointseg.config.folder_recipe import fit_to_dataset
from pointseg.config.presets import images_of, recipe_of
from pointseg.config.serialization import read_recipe
from pointseg.datasets.dataset import Dataset
from pointseg.images.config import ImageConfig
from pointseg.metrics import Confusion
from pointseg.models.checkpoint import read_checkpoint

GROUPS = ("visible", "not_visible")
"""Points that some image shows, and the others."""


@dataclass(frozen=True)
class VisibilitySource:
    """Decides which points count as visible when the tested model reads no images."""

    dataset: str
    """Name of the dataset, as ``open_dataset`` takes it; its recipe decides if no model is given."""
    model: Path | None = None
    """A trained model that reads images, whose recipe decides."""

    def recipe(self, dataset: Dataset) -> ImageConfig:
        """How images show points.

        Raises:
            UserError: the model cannot be read or reads no images; the dataset has no images.
        """
        if self.model is None:
            recipe = fit_to_dataset(recipe_of(self.dataset), dataset)
            return images_of(recipe, ImageConfig.encoder)
        content = read_checkpoint(self.model)
        try:
            images = read_recipe(content["recipe"]).images
        except UserError as error:
            raise UserError(f"checkpoint {self.model}: {error}") from error
        if images is None:
            raise UserError(
                f"--by-visibility {self.model}: must be a model that reads images, and this one does not; name "
                f"another, or none to use the recipe of {self.dataset}"
            )
        return images


def visibility_scores(found: Mapping[str, Confusion], names: Sequence[str]) -> dict[str, Any]:
    """The entry of ``metrics.json`` for both groups of points.

    Args:
        found: confusion of each of ``GROUPS``.
        names: of the K classes.

    Returns:
        For each group ``points``, ``miou_present`` and ``accuracy`` (None without points), and
        ``confusion``: counts by label and prediction, without zeros.
    """
    return {group: _scores(confusion, names) for group, confusion in found.items()}


def merge_visibility_scores(
    tests: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, Any] | None:
    """The scores of several tests together, from their summed counts.

    Args:
        tests: what ``visibility_scores`` returned for each.
        names: of the K classes.

    Returns:
        The scores of all; None if counts of one test are missing or do not fit.
    """
    found: dict[str, Confusion] = {}
    try:
        for test in tests:
            for group, scores in test.items():
                counts = _confusion(scores["confusion"], names)
                found.setdefault(group, Confusion(len(names))).merge(counts)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return visibility_scores(found, names)


def _scores(confusion: Confusion, names: Sequence[str]) -> dict[str, Any]:
    rows = zip(names, confusion.matrix, strict=True)
    numbers = confusion.as_dict(names)
    return {
        **{key: numbers[key] for key in ("points", "miou_present", "accuracy")},
        "confusion": {
            label: {name: int(count) for name, count in zip(names, row, strict=True) if count}
            for label, row in rows
            if row.any()
        },
    }


def _confusion(counts: Mapping[str, Mapping[str, int]], names: Sequence[str]) -> Confusion:
    matrix = np.zeros((len(names), len(names)), np.int64)
    for label, row in counts.items():
        for predicted, count in row.items():
            matrix[names.index(label), names.index(predicted)] = count
    return Confusion.of(matrix)
