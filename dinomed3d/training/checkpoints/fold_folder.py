"""The checkpoints that lie in the folder of a fold: the newest, those of an earlier run, leftovers of a kill."""

from __future__ import annotations

from pathlib import Path

from dinomed3d.runtime.errors import UserError
from dinomed3d.training.checkpoints.checkpoint import read_checkpoint

CONTINUED = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
"""What training can continue from; of those with equally many epochs, the first one is taken."""


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


def newest(asked: Path) -> tuple[str, str]:
    """The checkpoint with most epochs in the folder of a given one, and a text on the others' epochs.

    Args:
        asked: the one that nnU-Net has found; it exists.
    """
    if asked.name not in CONTINUED:
        return str(asked), ""
    epochs = epochs_done(asked.parent)
    name = max(epochs, key=lambda name: epochs[name])
    others = "".join(f"; {other} has {n}" for other, n in epochs.items() if other != name)
    return str(asked.with_name(name)), others
