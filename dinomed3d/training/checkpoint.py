"""Checkpoints of plain data, written atomically; and the state of all random generators."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dinomed3d.runtime.atomic_files import new_file
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.tensor_files import TensorFileError, read_torch

KEYS = ("network_weights", "optimizer_state", "logging", "_best_ema", "current_epoch")
"""Entries that resuming needs, besides `OWN_KEYS` under "dinomed3d"."""
OWN_KEYS = ("stage", "spec", "recipe", "random_states")
CONTINUED = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
"""What training can continue from; of those with equally many epochs, the first one is taken."""


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


def epochs_done(folder: Path) -> dict[str, int]:
    """Epochs that each checkpoint of a fold holds, by name, as in `CONTINUED`.

    Args:
        folder: of the fold.

    Raises:
        UserError: one of them cannot be read, so whether it is the newest is unknown.
    """
    epochs: dict[str, int] = {}
    for path in (folder / name for name in CONTINUED):
        if path.is_file():
            try:
                epochs[path.name] = read_checkpoint(path, mapped=True)["current_epoch"]
            except UserError as error:
                raise UserError(
                    f"{error}; to continue from another checkpoint in {folder}, move this one away"
                ) from error
    return epochs


def backup_checkpoints(folder: Path) -> list[str]:
    """Rename the checkpoints of an earlier run, so that they are neither lost nor resumed from.

    Args:
        folder: of the fold.

    Returns:
        The new names: `checkpoint_final.pth.previous1` and so on, with the first free number.
    """
    names = []
    for path in sorted(folder.glob("checkpoint_*.pth")):
        number = 1
        while (kept := path.with_name(f"{path.name}.previous{number}")).exists():
            number += 1
        path.rename(kept)
        names.append(kept.name)
    return names


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of checkpoints whose writing was killed."""
    for leftover in folder.glob(".*.part.checkpoint_*"):
        leftover.unlink()


def random_state() -> dict[str, Any]:
    """The state of this process's generators, Python's, numpy's and torch's, as plain data."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (
            str(kind),
            torch.from_numpy(np.array(keys, dtype=np.int64)),
            position,
            has_gauss,
            gauss,
        ),
        "torch": torch.get_rng_state(),
        # of this process's GPU alone; training without a GPU must not initialise CUDA
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore all generators to a `random_state`."""
    random.setstate(state["python"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
