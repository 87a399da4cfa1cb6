"""Files that are there whole or not at all: written under another name, then renamed."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_PART = re.compile(r"^\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.part(\.[a-z0-9.]+)?$")


def temp_path(path: Path, ending: str = "") -> Path:
    """A name beside `path` that nobody else uses, on any machine; it tells who writes it.

    Args:
        path: what it will be renamed to.
        ending: what libraries that go by the ending need to see.
    """
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.part{ending}")


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file and give it its name once it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temp_path(path)
    try:
        with open(part, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def settle(path: Path) -> None:
    """Have a file that a library wrote on the disk, so that what is said of it later is true."""
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Delete what killed writers of this machine have left; those of living ones stay."""
    import psutil

    for folder in folders:
        if not folder.is_dir():
            continue
        for path in list(folder.iterdir()):
            found = _PART.match(path.name)
            if found is None or found[1] != _HOST or int(found[2]) == os.getpid():
                continue
            if not psutil.pid_exists(int(found[2])):
                path.unlink(missing_ok=True)
