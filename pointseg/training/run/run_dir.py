"""The folder of a run: refuse to overwrite it, and back up the previous run until the new one has best.pt."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import atomic_write, remove_leftovers
from dinomed3d.runtime.files.file_lock import HeldError, hold, is_held_here

BEST, LAST, UNUSABLE = "best.pt", "last.pt", "unusable_scenes.json"
RUN_FILES = (BEST, LAST, "metrics.csv", "curves.png", "tensorboard", "pictures", UNUSABLE)
"""What training writes into its folder; other files there are never touched."""
PREVIOUS = "previous"
LOCK = ".lock"


@contextmanager
def lock_run_dir(folder: Path) -> Iterator[None]:
    """Keep other processes from the folder of a run until the block ends; what a killed run left half is removed.

    A process that holds the folder already goes on.

    Raises:
        UserError: another process is training there.
    """
    if is_held_here(folder / LOCK):
        yield
        return
    is_new = not folder.exists()
    try:
        with hold(folder / LOCK):
            remove_leftovers([folder, folder / "pictures"])
            yield
    except HeldError as error:
        raise UserError(
            f"--out {folder}: {error} is training there; wait for it to end, or give another --out"
        ) from error
    finally:
        if is_new:  # a run that was refused leaves no empty folder
            with suppress(OSError):
                folder.rmdir()


def check_run_dir(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to start over a run or what is left of it, or to resume one that does not exist.

    Raises:
        UserError: either of these.
    """
    exists, has_best = (folder / LAST).exists(), (folder / BEST).exists()
    if resume and not exists:
        backup = folder / PREVIOUS
        hint = f", or move the run in {backup} back" if backup.is_dir() else ""
        start = "give another --out" if has_best else "leave --resume out"
        raise UserError(f"--resume: {folder / LAST} does not exist; {start} to start a run{hint}")
    if resume or overwrite:
        return
    if exists:
        raise UserError(
            f"--out {folder}: already holds a run; add --resume to continue it, or --overwrite"
        )
    if has_best:
        raise UserError(
            f"--out {folder}: holds {BEST} of a run that cannot be continued, as {LAST} is gone; give another --out, "
            "or --overwrite"
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


def unusable_scenes(folder: Path) -> list[tuple[str, str]]:
    """Split and name of the scenes that ended the run in a folder."""
    try:
        found = json.loads((folder / UNUSABLE).read_text(encoding="utf-8"))
        return [(str(split), str(name)) for split, name in found]
    except (OSError, ValueError, TypeError):
        return []


def note_unusable(folder: Path, scene: tuple[str, str]) -> None:
    """Note that a scene ended the run, which may go on without it.

    Raises:
        WriteError: the system refuses to write.
    """
    scenes = dict.fromkeys([*unusable_scenes(folder), scene])
    atomic_write(folder / UNUSABLE, json.dumps(list(scenes), indent=1).encode())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
