"""Checkpoints: files of weights with everything needed to use them, read without executing code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import new_file
from dinomed3d.runtime.files.tensor_files import TensorFileError, read_torch
from pointseg.config.recipe import Recipe
from pointseg.datasets.classes import ClassList
from pointseg.files import TEXT_SUFFIXES, cloud_suffix

FORMAT, DISTILLED = "pointseg-1", "pointseg-distilled-1"
"""Formats of segmenters and of distilled backbones."""
ZIP = b"PK"
"""Begins files of ``torch.save``."""


def save_checkpoint(
    path: Path,
    model: Mapping[str, torch.Tensor],
    *,
    recipe: Recipe,
    classes: ClassList,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write weights, recipe and classes atomically.

    Args:
        path: the file.
        model: the segmenter's state dict.
        recipe: how it was trained.
        classes: what its outputs mean.
        training: state for resuming, tensors and plain values only; None in models to distribute.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "recipe": recipe.to_json(),
        "classes": list(classes.names),
        "colors": np.asarray(classes.colors).tolist(),
        "codes": list(classes.codes),
        "groups": json.dumps({name: list(rows) for name, rows in classes.groups.items()}),
        "model": {key: value.detach().cpu() for key, value in model.items()},
    }
    if training is not None:
        content["training"] = dict(training)
    write_content(path, content)


def write_content(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values atomically."""
    with new_file(path) as part, open(part, "wb") as stream:
        torch.save(dict(content), stream)


def read_checkpoint(path: Path, formats: Sequence[str] = (FORMAT,)) -> dict[str, Any]:
    """The content of a file that :func:`write_content` wrote.

    Args:
        path: the file.
        formats: accepted formats.

    Raises:
        UserError: no such file, a folder, not readable, or of another format.
    """
    if path.is_dir():
        inside = [path / name for name in ("best.pt", "last.pt") if (path / name).is_file()]
        advice = f"give {inside[0]}" if inside else "give best.pt of a training's folder"
        raise UserError(f"checkpoint {path}: is a folder; {advice}")
    try:
        content = read_torch(path)
    except TensorFileError as error:
        if (kind := _kind_of_other(path)) is not None:
            raise UserError(
                f"checkpoint {path}: is {kind}, not a model; give a model of pointseg-train, such as "
                "runs/first/best.pt"
            ) from error
        raise UserError(f"checkpoint {error}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found == DISTILLED and found not in formats:
        raise UserError(
            f"checkpoint {path}: is a distilled backbone without classes; train it on labels with "
            "pointseg-train --init"
        )
    if not isinstance(content, dict) or found not in formats:
        raise UserError(
            f"checkpoint {path}: must be a model that pointseg-train wrote ({FORMAT}); backbones of "
            "other programs are loaded by pointseg-train --init"
        )
    return content


def _kind_of_other(path: Path) -> str | None:
    """What a file is that is no model, where its name and its first bytes say so: -m and FILES may be confused."""
    suffix = cloud_suffix(path) if path.is_file() else None
    if suffix is None or suffix.endswith(".bin"):  # weights of others end in .bin
        return None
    try:
        with path.open("rb") as file:
            first = file.read(1 << 12)
    except OSError:
        return None
    if suffix in TEXT_SUFFIXES:  # which may hold anything
        return None if b"\0" in first else "a text file"
    if first.startswith(ZIP) and suffix != ".npz":  # a model under another name, damaged
        return None
    return "a file of NumPy arrays" if suffix in (".npy", ".npz") else "a cloud"
