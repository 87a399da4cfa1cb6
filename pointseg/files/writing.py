"""Files that are there whole or not at all: written under another name, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pointseg.files.errors import CloudFileError


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A name to write to; it becomes ``path`` when the block ends, or vanishes when it fails.

    Args:
        path: the file to be, in a folder that is made if need be. It may be the one that is read.

    Raises:
        CloudFileError: the system refuses to write there.
    """
    part = path.with_name(f".{secrets.token_hex(4)}.part.{path.name}")  # same ending, same disk
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CloudFileError(path, f"could not be written: {reason}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
