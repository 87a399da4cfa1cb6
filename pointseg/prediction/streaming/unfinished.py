"""The folder next to a result that is not finished: what a run that was stopped left, for the next one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.file_lock import HeldError, hold
from pointseg.evaluation.saved_labels import write_json

SUFFIX = ".unfinished"
STATE = "state.json"
LOCK = "lock"


def unfinished_folder(target: Path) -> Path:
    """The folder of a result, which is removed when that is complete."""
    return target.with_name(target.name + SUFFIX)


def read_state(folder: Path) -> dict[str, Any] | None:
    """What a run that was stopped has noted; None: nothing that can be read."""
    try:
        found = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Note how far a run is.

    Raises:
        WriteError: the system refuses to write.
    """
    write_json(folder / STATE, dict(state))


def changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What decides the result and is not as it was."""
    now = json.loads(json.dumps(now))
    return sorted(key for key in {*then, *now} if then.get(key) != now.get(key))


@contextmanager
def alone(folder: Path) -> Iterator[Path]:
    """Make the folder, and keep other processes from it until the block ends.

    Raises:
        UserError: another process is at work there.
    """
    try:
        with hold(folder / LOCK):
            yield folder
    except HeldError as error:
        raise UserError(f"{folder}: {error} is making this result; wait for it to end") from error


def discard(folder: Path) -> None:
    """Remove what a stopped run left of a result that is complete now, unless a process is at work on it."""
    if not folder.is_dir():
        return
    with suppress(UserError):
        with alone(folder):
            clear(folder)
        shutil.rmtree(folder, ignore_errors=True)


def clear(folder: Path) -> None:
    """Remove what is in the folder, but for its lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink()


def held_bytes(folder: Path) -> int:
    """Disk that the files of a folder take."""
    return sum(
        (Path(place) / name).stat().st_size for place, _, names in os.walk(folder) for name in names
    )


def check_disk(folder: Path, needed: int) -> None:
    """Refuse work whose files the disk does not hold, before it begins.

    Args:
        folder: where they go; what it holds counts as written.
        needed: bytes of all files.

    Raises:
        UserError: fewer are free.
    """
    left = needed - held_bytes(folder)
    free = shutil.disk_usage(folder).free
    if left > free:
        raise UserError(
            f"is streamed through {folder}, which takes {left / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free there; "
            "free some, or choose another folder (-o)"
        )
