"""What of a model is passed on: nothing that names a case, a person or a folder of the machine it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

DATASET_KEYS = frozenset(
    {
        *(
            "channel_names",
            "modality",
            "labels",
            "regions_class_order",
            "file_ending",
            "numTraining",
        ),
        *("overwrite_image_reader_writer", "name", "description", "reference", "citation"),
        *("licence", "license", "release", "tensorImageSize"),
    }
)
"""Entries of dataset.json that say what a model reads and writes, and where its data is from. Others, such as
`training`, `test` and `dataset`, list cases."""
PATHS = ("weights", "start_from")
"""Entries of a recipe that are paths."""


def portable_dataset(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """The content of dataset.json without lists of cases."""
    return {key: value for key, value in dataset.items() if key in DATASET_KEYS}


def portable_training(training: Mapping[str, Any]) -> dict[str, Any]:
    """The notes of our trainer, with paths cut to the names of their files."""
    recipe = training.get("recipe")
    if not isinstance(recipe, dict):
        return dict(training)
    cut = {key: _name(recipe[key]) for key in PATHS if isinstance(recipe.get(key), str)}
    return {**training, "recipe": {**recipe, **cut}}


def _name(path: str) -> str:
    return PureWindowsPath(path).name or "file"  # takes both kinds of slashes
