"""Checkpoints of plain data: written atomically, and read without running code from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import new_file
from dinomed3d.runtime.files.tensor_files import TensorFileError, read_torch

KEYS = ("network_weights", "optimizer_state", "logging", "_best_ema", "current_epoch")
"""Entries that resuming needs, in addition to `OWN_KEYS` under "dinomed3d"."""
OWN_KEYS = ("stage", "spec", "recipe", "random_states")


def plain(value: Any) -> Any:
    """Convert numpy's numbers and arrays to Python's, so that the file loads without running code."""
    if isinstance(value, Mapping):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(v) for v in value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value


def snapshot(value: Any) -> Any:
    """Copy tensors to the CPU and everything else to plain data: what training changes later is not in it."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {plain(k): snapshot(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(v) for v in value)
    return plain(value)


def write_checkpoint(content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint under a temporary name and rename it: a kill leaves the old one whole.

    Args:
        content: tensors and plain data.
        path: where; replaced if it exists.
    """
    with new_file(Path(path)) as part, open(part, "wb") as stream:
        torch.save(plain(dict(content)), stream)


def read_checkpoint(path: str | os.PathLike[str], *, mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint of this trainer to the CPU, without running code from it.

    Args:
        path: of the file.
        mapped: leave the tensors in the file until they are used (`read_torch`).

    Raises:
        UserError: it cannot be read, is incomplete, or is of another trainer.
    """
    try:
        content = read_torch(Path(path), mapped=mapped)
    except TensorFileError as error:
        raise UserError(
            f"checkpoint {error}, continue from another checkpoint, or train again"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("dinomed3d"), dict):
        raise UserError(
            f"checkpoint {path}: not written by DinoMed3DTrainer (no 'dinomed3d' entry); "
            "it can be used with the trainer that wrote it"
        )
    lacking = [key for key in KEYS if key not in content]
    lacking += [key for key in OWN_KEYS if key not in content["dinomed3d"]]
    if lacking:
        raise UserError(
            f"checkpoint {path}: lacks {', '.join(lacking)}; it was written by another version "
            f"({content['dinomed3d'].get('version', 'unknown')}) or is damaged. Use that version, or train again"
        )
    return content
