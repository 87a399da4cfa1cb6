"""Errors of writing results: of one file, which costs its case alone, or of the whole output folder."""

from __future__ import annotations

import errno
import os

_OF_THE_OUTPUT = (
    *(errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EIO, errno.ENODEV),
    *(getattr(errno, name) for name in ("EDQUOT", "ESTALE") if hasattr(errno, name)),
)
"""Errors of a disk, of a limit (`ulimit -f`) or of a folder, which all other cases would meet as well."""
_REFUSED = (errno.EACCES, errno.EPERM)
"""On Windows of one file alone: a mask that another program has open is not replaced."""


def ends_run(error: OSError, *, windows: bool = os.name == "nt") -> bool:
    """Whether an error of writing is no fault of the case: all others would meet it as well."""
    return error.errno in _OF_THE_OUTPUT or (error.errno in _REFUSED and not windows)
