"""The folder of a run: refuse to overwrite it, and back up the previous run until the new one has best.pt."""

from __future__ import annotations

import shutil
from pathlib import Path

from dinomed3d.runtime.errors import UserError

BEST, LAST = "best.pt", "last.pt"
RUN_FILES = (BEST, LAST, "metrics.csv", "curves.png", "tensorboard", "pictures")
"""What training writes into its folder; other files there are never touched."""
PREVIOUS = "previous"


def check_run_dir(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to start over a run, or to resume one that does not exist.

    Raises:
        UserError: either of these.
    """
    exists = (folder / LAST).exists()
    if resume and not exists:
        backup = folder / PREVIOUS
        hint = f", or move the run in {backup} back" if backup.is_dir() else ""
        raise UserError(
            f"--resume: {folder / LAST} does not exist; leave --resume out to start a run{hint}"
        )
    if exists and not (resume or overwrite):
        raise UserError(
            f"--out {folder}: already holds a run; add --resume to continue it, or --overwrite"
        )


def backup_previous_run(folder: Path) -> Path | None:
    """Move the files of the run in a folder, if there is one, into ``previous/`` below it.

    So neither ``--resume`` nor TensorBoard mixes it with the new run, and the old model is not lost if the
    new run fails. A failed run, without ``best.pt``, never replaces the backup of a good one.

    Returns:
        The backup folder; None if nothing was moved.
    """
    if not any((folder / name).exists() for name in (BEST, LAST)):
        return None
    backup = folder / PREVIOUS
    if backup.exists() and not (folder / BEST).exists():
        for name in RUN_FILES:
            _remove(folder / name)
        return None
    _remove(backup)
    backup.mkdir()
    for name in RUN_FILES:
        if (folder / name).exists():
            (folder / name).replace(backup / name)
    return backup


def delete_backup(folder: Path) -> None:
    """Delete the backup: the new run has a best model of its own."""
    _remove(folder / PREVIOUS)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
