"""A run that is begun anew over an old one: the old one is set aside until the new one has something to show."""

from __future__ import annotations

import shutil
from pathlib import Path

BEST, LAST = "best.pt", "last.pt"
OF_A_RUN = (BEST, LAST, "metrics.csv", "curves.png", "tensorboard", "pictures")
"""What training writes into its folder; the rest of what is there is not its own."""
REPLACED = "replaced"


def backup_previous_run(folder: Path) -> Path | None:
    """Move the files of the run in a folder, if there is one, into ``replaced`` below it.

    So neither ``--resume`` nor TensorBoard takes it for a part of the new one, and if that one comes to
    nothing the old one is not lost. A run that came to nothing itself, without ``best.pt``, does not
    push out what it was to replace.

    Returns:
        Where the files are now; None if there was nothing to move.
    """
    if not any((folder / name).exists() for name in (BEST, LAST)):
        return None
    kept = folder / REPLACED
    if kept.exists() and not (folder / BEST).exists():
        for name in OF_A_RUN:
            _remove(folder / name)
        return None
    _remove(kept)
    kept.mkdir()
    for name in OF_A_RUN:
        if (folder / name).exists():
            (folder / name).replace(kept / name)
    return kept


def delete_backup(folder: Path) -> None:
    """Remove what was set aside: the new run has a best model of its own."""
    _remove(folder / REPLACED)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
