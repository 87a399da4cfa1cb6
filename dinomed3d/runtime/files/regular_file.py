"""Whether a path is an ordinary file, before it is opened: reading a pipe or a device may never end."""

from __future__ import annotations

import stat
from pathlib import Path

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def special_kind(path: Path) -> str | None:
    """What a path is that is no ordinary file, such as `a pipe`; None for a file, and if nothing is there.

    Args:
        path: links are followed.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # whoever opens it says what is wrong
        return None
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)
